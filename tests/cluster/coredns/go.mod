module umbra.test/coredns

go 1.26.0
