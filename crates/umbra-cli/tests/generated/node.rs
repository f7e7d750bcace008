//! A real proxy as a laptop runs it, pushed by its push API, and backends that say who was asked.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::header::{HOST, LOCATION};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use umbra_proxy::{Options, Proxy};
use umbra_routing::{CONFIG_PATH, EPOCH_HEADER, Put, Reply, VERSION_HEADER};

use crate::requests::{Asked, CLIENTS};
use crate::world::PODS;

/// No test waits longer for what must happen.
const CEILING: Duration = Duration::from_secs(60);
/// Names a request to whoever is asked; no rule touches it.
const ID: &str = "x-id";
/// Names the backend to the client; no rule touches it.
const BACKEND: &str = "x-backend";

/// Backends that were asked, by the request's id, in the order in which they were.
type Seen = Rc<RefCell<HashMap<String, Vec<SocketAddr>>>>;

/// The proxy and the backends.
pub(crate) struct Node {
    pub(crate) proxy: Proxy,
    /// Of each backend, for the ports 80 and 81.
    pub(crate) backends: Vec<[SocketAddr; 2]>,
    seen: Seen,
    asked: u64,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) struct Happened {
    pub(crate) status: u16,
    pub(crate) grpc_status: Option<u8>,
    pub(crate) location: Option<String>,
    /// Who answered; `None`: the proxy itself.
    pub(crate) backend: Option<SocketAddr>,
    /// Who else was asked.
    pub(crate) copies: Vec<SocketAddr>,
}

impl Node {
    pub(crate) async fn start() -> Self {
        let seen = Seen::default();
        let mut backends = Vec::new();
        for _ in 0..PODS {
            backends.push([backend(&seen).await, backend(&seen).await]);
        }
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let proxy =
            Proxy::start(Options { workers: 1, ..Options::laptop(listen) }).await.expect("free ports");
        Self { proxy, backends, seen, asked: 0 }
    }

    /// Replaces everything the proxy knows; gives its reply.
    pub(crate) async fn push(&self, put: &Put) -> Reply {
        let body = serde_json::to_vec(put).expect("plain data");
        let request = Request::put(CONFIG_PATH).header(HOST, "node").header(EPOCH_HEADER, "1");
        let request = request.header(VERSION_HEADER, "1").body(Full::from(body)).expect("a request");
        let stream = TcpStream::connect(self.proxy.push_addr()).await.expect("the proxy listens");
        let answer = send(&mut connected(stream).await, request).await;
        let text = String::from_utf8_lossy(answer.body());
        assert_eq!(answer.status(), 200, "what a controller pushes is understood: {text}");
        serde_json::from_str(&text).expect("a reply")
    }

    /// Asks everything, each client on a connection of its own and one request after the other; then waits for all
    /// copies.
    pub(crate) async fn ask(&mut self, all: &[Asked]) -> Vec<Happened> {
        let of = |client: usize| all.iter().enumerate().filter(move |(_, asked)| asked.client == client);
        let first = self.asked;
        let clients = (0..CLIENTS.len()).map(|client| self.ask_as(client, first, of(client)));
        let answers: BTreeMap<u64, _> = join_all(clients).await.into_iter().flatten().collect();
        self.asked += all.len() as u64;
        self.settled().await;
        answers.into_iter().map(|(id, answer)| self.happened(&id.to_string(), &answer)).collect()
    }

    /// The requests of one client, by their numbers from `first` on.
    async fn ask_as<'a>(
        &self,
        client: usize,
        first: u64,
        all: impl Iterator<Item = (usize, &'a Asked)>,
    ) -> Vec<(u64, Response<Bytes>)> {
        let (mut open, mut answers): (Option<SendRequest<_>>, _) = (None, Vec::new());
        for (number, asked) in all {
            let mut sender = match open.take().filter(|sender| !sender.is_closed()) {
                Some(sender) => sender,
                None => connected(self.connect(client).await).await,
            };
            let id = first + number as u64;
            answers.push((id, send(&mut sender, request(asked, &id.to_string())).await));
            open = Some(sender);
        }
        answers
    }

    async fn connect(&self, client: usize) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Asked::source(client), 0).into()).expect("an address of the loopback network");
        let stream = socket.connect(self.proxy.traffic_addr()).await.expect("the proxy listens");
        stream.set_nodelay(true).expect("a socket");
        stream
    }

    fn happened(&self, id: &str, answer: &Response<Bytes>) -> Happened {
        let text = |headers: &HeaderMap, name| {
            headers.get(name).map(|value| value.to_str().expect("text").to_owned())
        };
        let backend = text(answer.headers(), BACKEND).map(|address| address.parse().expect("an address"));
        let mut copies = self.seen.borrow_mut().remove(id).unwrap_or_default();
        if let Some(primary) = copies.iter().position(|asked| Some(*asked) == backend) {
            copies.remove(primary);
        }
        Happened {
            status: answer.status().as_u16(),
            grpc_status: text(answer.headers(), "grpc-status")
                .map(|status| status.parse().expect("a number")),
            location: text(answer.headers(), LOCATION.as_str()),
            backend,
            copies,
        }
    }

    /// Waits until the counters say that every copy has come to its end.
    async fn settled(&self) {
        let settling = async {
            loop {
                let text = self.proxy.metrics_text();
                let sum = |name: &str| -> f64 {
                    let name = format!("umbra_shadow_{name}_total{{");
                    let ours = text.lines().filter(|line| line.starts_with(&name));
                    ours.map(|line| {
                        line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok()).expect("a number")
                    })
                    .sum()
                };
                let [eligible, sent, dropped, ended] = ["eligible", "sent", "dropped", "result"].map(sum);
                if (eligible - sent - dropped).abs() < 0.5 && (sent - ended).abs() < 0.5 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(CEILING, settling).await.expect("every copy ends");
    }
}

/// Answers 200 with its name; its task ends with the runtime.
async fn backend(seen: &Seen) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let seen = Rc::clone(seen);
    tokio::task::spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("listening");
            let seen = Rc::clone(&seen);
            let service = service_fn(move |request: Request<Incoming>| {
                let id = request.headers().get(ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
                seen.borrow_mut().entry(id.to_owned()).or_default().push(address);
                async move {
                    let _body = request.into_body().collect().await?;
                    let answer = Response::builder().header(BACKEND, address.to_string());
                    Ok::<_, hyper::Error>(answer.body(Full::<Bytes>::from("ok")).expect("an answer"))
                }
            });
            tokio::task::spawn_local(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address
}

fn request(asked: &Asked, id: &str) -> Request<Full<Bytes>> {
    let mut request =
        Request::builder().method(asked.method).uri(&asked.target).header(HOST, asked.host).header(ID, id);
    for (name, value) in &asked.headers {
        request = request.header(*name, *value);
    }
    let body = if asked.method == "POST" { "body" } else { "" };
    request.body(Full::from(body)).expect("a request")
}

async fn connected(stream: TcpStream) -> SendRequest<Full<Bytes>> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::task::spawn_local(connection);
    sender
}

async fn send(client: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Response<Bytes> {
    let answer = async {
        client.ready().await.expect("a connection that is kept");
        let (head, body) = client.send_request(request).await.expect("an answer").into_parts();
        Response::from_parts(head, body.collect().await.expect("a whole answer").to_bytes())
    };
    tokio::time::timeout(CEILING, answer).await.expect("an answer in time")
}
