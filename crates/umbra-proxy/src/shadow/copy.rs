//! One copy: connect, send, read the answer's end, judge.
//!
//! An outcome is decided once. The copy counts as *dropped* when umbra or the client kept it from being whole, and as
//! *sent* when everything that happened to it was the mirror's doing.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Method, Request, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use umbra_routing::{Client, ServiceName};

use super::Ledger;
use super::tap::{BodyEnd, CopyBody};
use crate::balance::Lease;
use crate::connection::Worker;
use crate::headers;
use crate::metrics::{DropReason, Exchange, Flags, Outcome, ShadowResult};
use crate::pool::{ConnectError, Pooled};
use crate::tables::Slot;

/// A copy that was admitted.
pub(crate) struct Copy {
    pub(crate) ledger: Ledger,
    pub(crate) _slot: Slot,
    pub(crate) service: Arc<ServiceName>,
    pub(crate) lease: Lease,
    pub(crate) body: CopyBody,
    pub(crate) end: BodyEnd,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) client: Option<Arc<Client>>,
    pub(crate) started: Instant,
}

/// How an attempt at the mirror ended.
enum Ended {
    Answered { code: u16, bytes: u64 },
    TimedOut,
    NotConnected,
    Broken,
    Cut(DropReason),
}

impl Copy {
    /// Sends the copy and reads its answer. Dropped before its end, it counts as `shutdown`.
    pub(crate) async fn run(self, worker: Rc<Worker>) {
        let Self { mut ledger, _slot, service, lease, body, end, method, uri, headers, client, started } =
            self;
        let head_bytes = headers::wire_size(method.as_str().len() + uri.to_string().len() + 12, &headers);
        let body_bytes = body.handed_over();
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let exchange = exchange(&worker, &ledger, &lease, request);
        let too_late = async {
            match end.wait().await {
                Some(reason) => Ended::Cut(reason),
                None => {
                    tokio::time::sleep(worker.limits.shadow.timeout).await;
                    Ended::TimedOut
                }
            }
        };
        let ended = tokio::select! {
            biased;
            ended = exchange => ended,
            ended = too_late => ended,
        };
        // A connection that ended because its body was cut is not the mirror's fault.
        let ended = end.cut().map_or(ended, Ended::Cut);
        let (outcome, code, flags, bytes) = judged(&ended);
        ledger.close(outcome);
        if let Outcome::Sent(_) = outcome {
            let upstream = Some(lease.upstream());
            let who =
                Exchange { client: client.as_ref(), service: &service, upstream, code, flags, shadow: true };
            worker.series(&who).record(started.elapsed(), head_bytes + body_bytes.get(), bytes);
        }
    }
}

fn judged(ended: &Ended) -> (Outcome, u16, Flags, u64) {
    let sent = Outcome::Sent;
    match *ended {
        Ended::Answered { code, bytes } => (sent(ShadowResult::Answered), code, Flags::None, bytes),
        Ended::TimedOut => (sent(ShadowResult::TimedOut), 504, Flags::UpstreamTimeout, 0),
        Ended::NotConnected => (sent(ShadowResult::Failed), 503, Flags::UpstreamConnectFailure, 0),
        Ended::Broken => (sent(ShadowResult::Failed), 503, Flags::UpstreamTermination, 0),
        Ended::Cut(reason) => (Outcome::Dropped(reason), 0, Flags::None, 0),
    }
}

async fn exchange(
    worker: &Rc<Worker>,
    ledger: &Ledger,
    lease: &Lease,
    mut request: Request<CopyBody>,
) -> Ended {
    let address = lease.upstream().endpoint.address;
    let mut reuse = worker.mirrors.reuse(address);
    loop {
        let mut pooled = match reuse.take() {
            Some(pooled) => pooled,
            None => match connect(worker, ledger, address).await {
                Ok(pooled) => pooled,
                Err(_) => return Ended::NotConnected,
            },
        };
        match pooled.sender.try_send_request(request).await {
            Ok(answer) => {
                if pooled.reused {
                    // It is reachable, whatever other endpoints' failed connects have said.
                    ledger.mirror.breaker.connected();
                }
                return drain(worker, pooled, answer).await;
            }
            // The connection had closed before anything was sent: that is no retry.
            Err(mut error) if pooled.reused => match error.take_message() {
                Some(unsent) => request = unsent,
                None => return Ended::Broken,
            },
            Err(_) => return Ended::Broken,
        }
    }
}

async fn connect(
    worker: &Rc<Worker>,
    ledger: &Ledger,
    address: std::net::SocketAddr,
) -> Result<Pooled<CopyBody>, ConnectError> {
    let connected = worker.mirrors.connect(address).await;
    match &connected {
        Ok(_) => ledger.mirror.breaker.connected(),
        Err(_) => ledger.mirror.breaker.failed(Instant::now()),
    }
    connected
}

/// Reads the answer to its end, so that the connection lives on; a long one costs the connection.
async fn drain(worker: &Rc<Worker>, pooled: Pooled<CopyBody>, answer: hyper::Response<Incoming>) -> Ended {
    let (head, mut body) = answer.into_parts();
    let code = head.status.as_u16();
    let mut bytes = headers::wire_size(15, &head.headers);
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Ended::Broken };
        let chunk = frame.data_ref().map_or(0, bytes::Bytes::len);
        read += chunk;
        bytes += chunk as u64;
        if read > worker.limits.shadow.answer_bytes {
            return Ended::Answered { code, bytes };
        }
    }
    worker.mirrors.put(pooled);
    Ended::Answered { code, bytes }
}
