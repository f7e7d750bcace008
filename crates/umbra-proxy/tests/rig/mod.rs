//! A proxy on loopback with backends that behave as told.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::value::to_raw_value;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use umbra_proxy::listen::Mode;
use umbra_proxy::metrics::Metrics;
use umbra_proxy::tables::Tables;
use umbra_proxy::worker::{Limits, Options, ShadowLimits, Workers};
use umbra_routing::{
    BackendRef, BackendSet, Client, Config, Endpoint, Key, Mirror, Port, Protocol, Put, RequestMatch, Rule,
    ServiceName, ServiceTable, SpokenTo, StringMatch, Variant, WeightedBackend,
};

/// No test waits longer for what must happen.
const CEILING: Duration = Duration::from_secs(20);

pub fn service() -> ServiceName {
    ServiceName::new("default", "web")
}

/// Subset `version` of the service under test.
pub fn subset(version: &str) -> BackendRef {
    let selector = Some(BTreeMap::from([("version".to_owned(), version.to_owned())]));
    BackendRef { service: service(), port: 80, subset: Some(version.to_owned()), selector }
}

/// A subset that nothing defines.
pub fn undefined(version: &str) -> BackendRef {
    BackendRef { selector: None, ..subset(version) }
}

pub fn to(backend: BackendRef, weight: u32) -> WeightedBackend {
    WeightedBackend::new(weight, backend)
}

pub fn rule(destinations: Vec<WeightedBackend>, mirrors: Vec<BackendRef>) -> Rule {
    let mirrors = mirrors.into_iter().map(|backend| Mirror::new(1_000_000, backend)).collect();
    Rule { name: "main".into(), destinations, mirrors, ..Rule::default() }
}

pub fn on_path(prefix: &str, rule: Rule) -> Rule {
    let uri = Some(StringMatch::Prefix(prefix.into()));
    Rule { matches: vec![RequestMatch { uri, ..Default::default() }], ..rule }
}

/// What a node is pushed.
#[derive(Default)]
pub struct Pushed {
    pub protocol: Option<Protocol>,
    /// Which HTTP all endpoints are spoken to.
    pub spoken_to: SpokenTo,
    /// Those of subset v2, if it is another.
    pub mirrors_spoken_to: Option<SpokenTo>,
    /// The Service's only port; 80 without.
    pub port: Option<u16>,
    pub rules: Vec<Rule>,
    pub variants: Vec<(String, Vec<Rule>)>,
    pub sets: Vec<(BackendRef, Vec<SocketAddr>)>,
    pub clients: Vec<(std::net::IpAddr, Client)>,
}

pub struct Proxy {
    pub tables: Arc<Tables>,
    pub metrics: Arc<Metrics>,
    pub workers: Workers,
    config: Mutex<Config>,
}

impl Proxy {
    pub fn start(pushed: &Pushed) -> Self {
        Self::with(pushed, Limits::default(), Mode::ByHost)
    }

    pub fn with(pushed: &Pushed, mut limits: Limits, mode: Mode) -> Self {
        let listen = ([127, 0, 0, 1], 0).into();
        // Tests count copies, however late the machine makes a worker; those of lateness say how late it may be.
        if limits.shadow.lag == ShadowLimits::default().lag {
            limits.shadow.lag = Duration::MAX;
        }
        Self::told(pushed, Options { listen, workers: 1, mode, limits, shadow_mark: None, seed: Some(7) })
    }

    pub fn told(pushed: &Pushed, options: Options) -> Self {
        let metrics = Metrics::new();
        let tables = Tables::new(Arc::clone(&metrics));
        let workers = Workers::start(options, &tables, &metrics).expect("a free port");
        let proxy = Self { tables, metrics, workers, config: Mutex::default() };
        proxy.push(pushed);
        proxy
    }

    pub fn push(&self, pushed: &Pushed) {
        let mut config = self.config.lock().expect("no test panics here");
        let applied = config.put(&put(pushed)).expect("well-formed");
        assert_eq!(self.tables.apply(&config, &applied), []);
    }

    pub fn push_nothing(&self) {
        let mut config = self.config.lock().expect("no test panics here");
        let applied = config.put(&Put::default()).expect("well-formed");
        assert_eq!(self.tables.apply(&config, &applied), []);
    }

    pub fn address(&self) -> SocketAddr {
        self.workers.local_addr()
    }

    /// The sum of a metric's series whose labels contain all of `having`.
    pub fn count(&self, name: &str, having: &[&str]) -> u64 {
        let text = self.metrics.encode();
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let chosen =
            text.lines().filter(of_name).filter(|line| having.iter().all(|label| line.contains(label)));
        chosen
            .map(|line| line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok()).expect("a number") as u64)
            .sum()
    }

    pub fn dropped(&self, reason: &str) -> u64 {
        self.count("umbra_shadow_dropped_total", &[&format!("reason=\"{reason}\"")])
    }

    pub fn result(&self, result: &str) -> u64 {
        self.count("umbra_shadow_result_total", &[&format!("result=\"{result}\"")])
    }

    /// Waits until no copy is in flight, and the sums add up: eligible = sent + dropped, sent = results.
    pub async fn settled(&self, eligible: u64) {
        let sums = || {
            let [eligible, sent, dropped, result] = ["eligible", "sent", "dropped", "result"]
                .map(|n| self.count(&format!("umbra_shadow_{n}_total"), &[]));
            (eligible, sent, dropped, result)
        };
        until("every copy has an outcome", || {
            let (all, sent, dropped, result) = sums();
            all == eligible && all == sent + dropped && sent == result
        })
        .await;
    }

    pub async fn client(&self) -> TestClient {
        TestClient::connect(self.address()).await
    }
}

fn put(pushed: &Pushed) -> Put {
    let variant = |client_namespace, rules: &[Rule]| Variant { client_namespace, rules: rules.to_vec() };
    let mut variants = vec![variant(None, &pushed.rules)];
    variants.extend(pushed.variants.iter().map(|(namespace, rules)| variant(Some(namespace.clone()), rules)));
    let protocol = pushed.protocol.unwrap_or(Protocol::Http);
    let table = ServiceTable {
        service: service(),
        addresses: vec!["10.96.0.10".parse().expect("an address"), "fd00::10".parse().expect("an address")],
        ports: vec![Port { number: pushed.port.unwrap_or(80), protocol, variants }],
        leave_alone: None,
        rules_of: Default::default(),
    };
    let mut resources = BTreeMap::new();
    resources.insert(Key::Service(service()), to_raw_value(&table).expect("plain data"));
    for (backend, addresses) in &pushed.sets {
        let version = backend.subset.clone().unwrap_or_default();
        let endpoints = addresses.iter().map(|address| endpoint(*address, &version)).collect();
        let selector = backend.selector.clone().expect("defined");
        let set = BackendSet {
            service: backend.service.clone(),
            port: backend.port,
            selector,
            spoken_to: pushed.mirrors_spoken_to.filter(|_| version == "v2").unwrap_or(pushed.spoken_to),
            endpoints,
        };
        resources.insert(backend.key().expect("defined"), to_raw_value(&set).expect("plain data"));
    }
    for (ip, client) in &pushed.clients {
        resources.insert(Key::Client(*ip), to_raw_value(client).expect("plain data"));
    }
    Put { resources, ..Put::default() }
}

fn endpoint(address: SocketAddr, version: &str) -> Endpoint {
    Endpoint {
        address,
        pod: None,
        namespace: "default".into(),
        workload: format!("web-{version}"),
        app: "web".into(),
        version: version.into(),
        canonical_name: "web".into(),
        canonical_revision: version.into(),
        zone: None,
    }
}

pub fn client_pod(namespace: &str) -> Client {
    Client {
        pod: "caller-1".into(),
        namespace: namespace.into(),
        workload: "caller".into(),
        app: "caller".into(),
        version: "v9".into(),
        canonical_name: "caller".into(),
        canonical_revision: "v9".into(),
        labels: BTreeMap::new(),
        skip: false,
    }
}

/// Waits for a condition, by looking again and again.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within(what, looking).await;
}

/// Fails a test that hangs.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(CEILING, future).await.unwrap_or_else(|_| panic!("did not happen: {what}"))
}

/// A request as a backend saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub version: http::Version,
    pub method: http::Method,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
    /// Which of the backend's connections it came on.
    pub connection: usize,
}

/// A body of any kind.
pub type AnyBody = BoxBody<Bytes, Infallible>;

pub fn full(body: impl Into<Bytes>) -> AnyBody {
    Full::new(body.into()).boxed()
}

/// A body of no known length that ends in trailers.
pub fn with_trailers(body: &'static str, trailers: &[(&'static str, &'static str)]) -> AnyBody {
    let field = |(name, value): &(&'static str, &'static str)| {
        (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
    };
    let trailers: HeaderMap = trailers.iter().map(field).collect();
    let frames = [Frame::data(Bytes::from(body)), Frame::trailers(trailers)].map(Ok);
    StreamBody::new(futures::stream::iter(frames)).boxed()
}

/// A backend that reads requests whole, remembers them and answers its name.
#[derive(Clone)]
pub struct Backend {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Backend {
    pub async fn named(name: &'static str) -> Self {
        Self::answering(move |_| Response::new(Full::from(name))).await
    }

    pub async fn answering<F>(answer: F) -> Self
    where
        F: Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync + 'static,
    {
        Self::speaking(Version::HTTP_11, move |seen| answer(seen).map(BodyExt::boxed)).await
    }

    /// Speaks this version of HTTP and no other.
    pub async fn speaking<F>(version: Version, answer: F) -> Self
    where
        F: Fn(&Seen) -> Response<AnyBody> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (seen, answer) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::new(answer));
        let all = Arc::clone(&seen);
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.expect("listening");
                let (all, answer) = (Arc::clone(&all), Arc::clone(&answer));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (all, answer) = (Arc::clone(&all), Arc::clone(&answer));
                    async move {
                        let seen = see(request, connection).await?;
                        let response = answer(&seen);
                        all.lock().expect("no test panics here").push(seen);
                        Ok::<_, hyper::Error>(response)
                    }
                });
                let io = TokioIo::new(stream);
                if version == Version::HTTP_2 {
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    tokio::spawn(server.serve_connection(io, service));
                } else {
                    let server = hyper::server::conn::http1::Builder::new();
                    tokio::spawn(server.serve_connection(io, service));
                }
            }
        });
        Self { address, seen }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no test panics here").clone()
    }
}

async fn see(request: Request<Incoming>, connection: usize) -> Result<Seen, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?;
    Ok(Seen {
        version: head.version,
        method: head.method,
        target: head.uri.to_string(),
        headers: head.headers,
        trailers: body.trailers().cloned(),
        body: body.to_bytes(),
        connection,
    })
}

/// A backend that does with each connection what `serve` says.
pub async fn raw_backend<F, Fut>(serve: F) -> SocketAddr
where
    F: Fn(usize, TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.expect("listening");
            tokio::spawn(serve(number, stream));
        }
    });
    address
}

/// A backend that takes connections and resets them: at once, often before whoever connects has looked.
pub fn resetting() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    // On a thread of its own, which is woken by the handshake alone; it ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("listening");
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket");
        }
    });
    address
}

/// An address that refuses connections.
pub fn refusing() -> SocketAddr {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let address = socket.local_addr().expect("bound");
    // Bound and not listening as long as the test runs: the port is nobody else's.
    std::mem::forget(socket);
    address
}

/// Reads one request's head from a stream.
pub async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).expect("ASCII")
}

/// A keep-alive client.
pub struct TestClient {
    pub sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

impl TestClient {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("the proxy listens")).await
    }

    /// From another address of loopback, as another pod.
    pub async fn connect_from(source: IpAddr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((source, 0).into()).expect("all of 127.0.0.0/8 is ours");
        Self::over(socket.connect(address).await.expect("the proxy listens")).await
    }

    async fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket");
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(connection);
        Self { sender }
    }

    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        let answer = async {
            self.sender.ready().await.expect("the connection is kept alive");
            let (head, body) = self.sender.send_request(request).await.expect("an answer").into_parts();
            Response::from_parts(head, body.collect().await.expect("a whole answer").to_bytes())
        };
        within("an answer", answer).await
    }

    pub async fn get(&mut self, path: &str) -> Response<Bytes> {
        self.send(get(path)).await
    }

    pub async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> Response<Bytes> {
        let request = Request::post(path).header("host", "web");
        self.send(request.body(Full::new(body.into())).expect("a request")).await
    }
}

/// What a client of HTTP/2 got.
pub struct Whole {
    pub status: http::StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

/// A client of HTTP/2 by prior knowledge; its clones share the connection.
#[derive(Clone)]
pub struct Http2Client {
    pub sender: hyper::client::conn::http2::SendRequest<AnyBody>,
}

impl Http2Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the proxy listens");
        stream.set_nodelay(true).expect("a socket");
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.expect("a connection");
        tokio::spawn(connection);
        Self { sender }
    }

    pub async fn try_send(&mut self, request: Request<AnyBody>) -> Result<Whole, hyper::Error> {
        let answer = async {
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            let body = body.collect().await?;
            let trailers = body.trailers().cloned();
            Ok(Whole { status: head.status, headers: head.headers, body: body.to_bytes(), trailers })
        };
        within("an answer", answer).await
    }

    pub async fn send(&mut self, request: Request<AnyBody>) -> Whole {
        self.try_send(request).await.expect("a whole answer")
    }

    pub async fn get(&mut self, path: &str) -> Whole {
        self.send(http2_get(path)).await
    }
}

pub fn http2_get(path: &str) -> Request<AnyBody> {
    Request::get(format!("http://web{path}")).body(full("")).expect("a request")
}

/// A call of gRPC's.
pub fn grpc(path: &str, body: AnyBody) -> Request<AnyBody> {
    let request = Request::post(format!("http://web{path}"));
    request.header("content-type", "application/grpc").header("te", "trailers").body(body).expect("a request")
}

pub fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "web").body(Full::default()).expect("a request")
}

/// Sends text and reads what comes back until the proxy closes.
pub async fn talk(address: SocketAddr, text: impl AsRef<[u8]>) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.expect("the proxy listens");
        stream.write_all(text.as_ref()).await.expect("a reader");
        let mut answer = Vec::new();
        // A proxy that closes with unread bytes left resets; what it said first counts.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    within("the proxy answers and closes", exchange).await
}
