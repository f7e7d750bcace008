//go:build tools

// Package tools pins CoreDNS for the cluster tests.
package tools

import _ "github.com/coredns/coredns"
