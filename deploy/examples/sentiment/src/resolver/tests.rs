use super::*;
use tokio::net::{TcpListener, TcpSocket};

/// A name server on loopback that knows `sa-logic.default.svc.test` only, and cuts its answers over UDP.
async fn name_server() -> SocketAddr {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpSocket::new_v4().unwrap();
        // The kernel gave a port that is free for UDP; somebody's TCP connection may have it.
        match tcp.bind(udp.local_addr().unwrap()) {
            Ok(()) => break (udp, tcp),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse),
        }
    };
    let address = udp.local_addr().unwrap();
    let tcp = tcp.listen(16).unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            let query = &buffer[..length];
            // First a stray answer, which must not be taken.
            let mut stray = reply(query, false);
            stray[0] ^= 0xff;
            udp.send_to(&stray, from).await.unwrap();
            udp.send_to(&reply(query, true), from).await.unwrap();
        }
    });
    tokio::spawn(serve_tcp(tcp));
    address
}

async fn serve_tcp(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut query).await.unwrap();
        let answer = reply(&query, false);
        stream.write_u16(answer.len() as u16).await.unwrap();
        stream.write_all(&answer).await.unwrap();
    }
}

fn reply(query: &[u8], cut: bool) -> Vec<u8> {
    let name = b"\x08sa-logic\x07default\x03svc";
    let known = query.windows(name.len()).any(|part| part == name);
    let mut answer = query.to_vec();
    answer[2] = if cut && known { 0x82 } else { 0x80 };
    answer[3] = if known { 0 } else { 3 };
    if known && !cut && query[query.len() - 3] == 1 {
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 96, 0, 7]);
    }
    answer
}

async fn resolver() -> Resolver {
    let servers = vec![name_server().await];
    let search = ["other.svc.test", "default.svc.test"].map(String::from).to_vec();
    Resolver::new(ResolvConf { servers, search, ndots: 5, ..ResolvConf::default() })
}

#[tokio::test]
async fn searches_and_falls_back_to_tcp() {
    let addresses = resolver().await.resolve("sa-logic").await.unwrap();
    assert_eq!(addresses, ["10.96.0.7".parse::<IpAddr>().unwrap()]);
}

#[tokio::test]
async fn a_name_nobody_knows() {
    let error = resolver().await.resolve("sa-logik").await.unwrap_err();
    assert!(matches!(error, ResolveError::NotFound(name) if name == "sa-logik"));
}

#[tokio::test]
async fn addresses_and_localhost_need_no_server() {
    let resolver = Resolver::new(ResolvConf::default());
    assert_eq!(resolver.resolve("10.0.0.1").await.unwrap(), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(resolver.resolve("[::1]").await.unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
    assert!(resolver.resolve("localhost").await.unwrap()[0].is_loopback());
    let error = resolver.resolve("sa-logic").await.unwrap_err();
    assert!(error.to_string().contains("names no server"), "{error}");
}
