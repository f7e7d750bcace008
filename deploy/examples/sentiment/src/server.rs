//! A plain HTTP/1.1 server: keep-alive, and a stop that no caller notices.

use std::convert::Infallible;
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What a handler answers.
pub type Answer = Response<Full<Bytes>>;

/// How long a stopping server waits for answers under way before it cuts them. Below the 30 s that the kubelet waits.
const DRAIN: Duration = Duration::from_secs(10);

/// Flags that every server of the example has.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    /// Address to listen on; port 0 picks a free one, printed as the first line.
    #[arg(long, env = "LISTEN")]
    pub listen: SocketAddr,
    /// Seconds to go on accepting after SIGTERM, while the endpoint's removal travels through the cluster.
    #[arg(long, env = "LINGER_SECONDS", default_value_t = 0.0)]
    pub linger_seconds: f64,
    /// Close connections that were idle this long (seconds); absent keeps them.
    #[arg(long, env = "IDLE_SECONDS")]
    pub idle_seconds: Option<f64>,
}

/// How far the stop has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    /// Answers say `Connection: close`, so that callers leave by themselves.
    Leaving,
    /// Idle connections are closed, busy ones end after their answer.
    Draining,
}

/// Binds, prints `{"listening":"ADDRESS"}`, and serves until SIGTERM or SIGINT; then leaves without cutting answers.
///
/// # Errors
/// When the address cannot be bound or the signal handlers cannot be set.
pub async fn run<H, F>(args: &ServerArgs, handler: H) -> std::io::Result<()>
where
    H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let listener = TcpListener::bind(args.listen).await?;
    writeln!(std::io::stdout(), "{{\"listening\":\"{}\"}}", listener.local_addr()?)?;
    let stop = stop_signal()?;
    serve(listener, args, handler, stop).await;
    Ok(())
}

/// Resolves at the first SIGTERM or SIGINT.
///
/// # Errors
/// When the handlers cannot be set.
pub fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// Serves `listener` until `stop` resolves, lingers, then drains. Dropping the future cuts everything.
pub async fn serve<H, F>(listener: TcpListener, args: &ServerArgs, handler: H, stop: impl Future<Output = ()>)
where
    H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let handler = Arc::new(handler);
    let (stage, staged) = watch::channel(Stage::Serving);
    let mut connections = JoinSet::new();
    let idle = args.idle_seconds.map(Duration::from_secs_f64);
    let linger = Duration::from_secs_f64(args.linger_seconds);
    let mut leave = std::pin::pin!(async {
        stop.await;
        stage.send_replace(Stage::Leaving);
        tokio::time::sleep(linger).await;
    });
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(connection(stream, Arc::clone(&handler), idle, staged.clone()));
            },
            _ = connections.join_next(), if !connections.is_empty() => {}
            () = &mut leave => break,
        }
    }
    drop(listener);
    stage.send_replace(Stage::Draining);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        let _ = writeln!(std::io::stderr(), "{} connections cut after {DRAIN:?}", connections.len());
    }
}

async fn connection<H, F>(
    stream: TcpStream,
    handler: Arc<H>,
    idle: Option<Duration>,
    stage: watch::Receiver<Stage>,
) where
    H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let _ = stream.set_nodelay(true);
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(idle);
    let seen = stage.clone();
    let service = service_fn(move |request| {
        let answer = handler(request);
        let seen = seen.clone();
        async move {
            let mut answer = answer.await;
            if *seen.borrow() != Stage::Serving {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut served = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut stage = stage;
    tokio::select! {
        _ = served.as_mut() => return,
        _ = stage.wait_for(|stage| *stage == Stage::Draining) => served.as_mut().graceful_shutdown(),
    }
    // An error here is the caller's going away in mid-request; there is nobody left to tell.
    let _ = served.await;
}

/// A JSON answer.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(value.to_string())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    fn args(idle_seconds: Option<f64>) -> ServerArgs {
        ServerArgs { listen: "127.0.0.1:0".parse().unwrap(), linger_seconds: 0.0, idle_seconds }
    }

    async fn ok(_: Request<Incoming>) -> Answer {
        json(StatusCode::OK, &serde_json::json!({}))
    }

    async fn started(args: ServerArgs) -> (SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind(args.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            serve(listener, &args, ok, async {
                let _ = stopped.await;
            })
            .await;
        });
        (address, stop, task)
    }

    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 1024];
        let read = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed_only_when_asked_for() {
        let (address, _stop, _task) = started(args(Some(0.05))).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"));
        assert_eq!(stream.read(&mut [0; 64]).await.unwrap(), 0, "closed without a further byte");
    }

    #[tokio::test]
    async fn a_stop_closes_idle_connections_and_ends() {
        let (address, stop, task) = started(args(None)).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"));
        drop(stop);
        assert_eq!(stream.read(&mut [0; 64]).await.unwrap(), 0);
        task.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
