//! One copy: connect, send, read the answer's end, judge.
//!
//! An outcome is decided once. The copy counts as *dropped* when umbra or the client kept it from being whole, and as
//! *sent* when everything that happened to it was the mirror's doing.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use http::Response;
use http_body::Body;
use http_body_util::BodyExt;
use umbra_routing::{Client, grpc_status};

use super::Ledger;
use super::head::{Head, Place};
use super::tap::{BodyEnd, CopyBody};
use crate::balance::{Backends, CopyLease};
use crate::clock;
use crate::connection::Worker;
use crate::headers;
use crate::held::Held;
use crate::metrics::{DropReason, Exchange, Flags, Outcome, ShadowResult, Spoken};
use crate::pool::{ConnectError, Missing, PeerBody, Pooled, ResetOnDrop, Unanswered};
use crate::tables::Slot;

/// A copy that was admitted.
pub(crate) struct Copy {
    pub(crate) ledger: Ledger,
    pub(crate) _slot: Slot,
    pub(crate) set: Held<Backends>,
    pub(crate) lease: CopyLease,
    pub(crate) head: Head,
    pub(crate) is_grpc: bool,
    pub(crate) body: CopyBody,
    pub(crate) end: BodyEnd,
    pub(crate) client: Option<Held<Client>>,
    pub(crate) started: Instant,
}

/// How an attempt at the mirror ended.
enum Ended {
    Answered {
        code: u16,
        grpc_status: Option<u8>,
        bytes: u64,
    },
    TimedOut,
    NotConnected,
    /// The mirror took a new connection for it alone, and ended it without a byte of an answer.
    HungUp,
    Broken,
    Reset,
    Cut(DropReason),
}

impl Copy {
    /// Sends the copy and reads its answer. Dropped before its end, it counts as `shutdown`.
    pub(crate) async fn run(self, worker: Rc<Worker>) {
        let Self { mut ledger, _slot, set, lease, head, is_grpc, body, end, client, started } = self;
        let head_bytes = head.size();
        let exchange = exchange(&worker, &ledger, &lease, (&head, body, started));
        let too_late = async {
            match end.wait().await {
                Some(reason) => Ended::Cut(reason),
                None => {
                    worker.recycled.timer(tokio::time::Instant::now() + worker.limits.shadow.timeout).await;
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
        match ended {
            Ended::HungUp => ledger.mirror.hang_ups.hung_up(),
            // It did not hang up for so long.
            Ended::TimedOut => ledger.mirror.hang_ups.stayed(),
            _ => {}
        }
        let (outcome, code, flags, bytes) = judged(&ended);
        let grpc_status = match ended {
            Ended::Answered { grpc_status, .. } => grpc_status,
            _ => None,
        };
        ledger.close(outcome);
        if let Outcome::Sent(_) = outcome {
            let upstream = Some(lease.upstream().shared());
            let who = Exchange {
                client: client.as_ref().map(Held::shared),
                service: &set.service,
                upstream,
                code,
                spoken: Spoken::new(is_grpc, grpc_status, code),
                flags: flags.into(),
                shadow: true,
            };
            worker.series(&who).record(started.elapsed(), head_bytes + end.handed_over(), bytes);
        }
    }
}

fn judged(ended: &Ended) -> (Outcome, u16, Flags, u64) {
    let sent = Outcome::Sent;
    match *ended {
        Ended::Answered { code, bytes, .. } => (sent(ShadowResult::Answered), code, Flags::None, bytes),
        Ended::TimedOut => (sent(ShadowResult::TimedOut), 504, Flags::UpstreamTimeout, 0),
        Ended::NotConnected => (sent(ShadowResult::Failed), 503, Flags::UpstreamConnectFailure, 0),
        Ended::HungUp | Ended::Broken => (sent(ShadowResult::Failed), 503, Flags::UpstreamTermination, 0),
        Ended::Reset => (sent(ShadowResult::Failed), 503, Flags::UpstreamReset, 0),
        Ended::Cut(reason) => (Outcome::Dropped(reason), 0, Flags::None, 0),
    }
}

async fn exchange(
    worker: &Rc<Worker>,
    ledger: &Ledger,
    lease: &CopyLease,
    (head, mut body, started): (&Head, CopyBody, Instant),
) -> Ended {
    let address = lease.upstream().endpoint.address;
    let mut reuse = head.reuse(&worker.mirrors, address, (!body.is_end_stream(), started));
    loop {
        let mut place = match reuse.take() {
            Some(place) => place,
            None => match connect(worker, ledger, (address, head)).await {
                Ok(place) => place,
                Err(error) => return unconnected(&error, head),
            },
        };
        let reused = place.is_reused();
        let reset = place.reset_on_drop();
        match place.send(body).await {
            Ok(answer) => {
                ledger.mirror.hang_ups.stayed();
                if reused {
                    // It is reachable, whatever other endpoints' failed connects have said.
                    ledger.mirror.breaker.connected();
                }
                return drain(worker, (place.into_pooled(), reset), answer).await;
            }
            // The connection had closed before anything was sent: that is no retry.
            Err(Unanswered { how: Missing::Unsent, untouched: Some(unsent), .. }) if reused => body = unsent,
            Err(Unanswered { how: Missing::Refused | Missing::Reset, .. }) => return Ended::Reset,
            Err(Unanswered { how: Missing::Unsent | Missing::Closed { silent: true }, .. })
                if place.is_fresh() =>
            {
                return Ended::HungUp;
            }
            Err(_) => return Ended::Broken,
        }
    }
}

async fn connect<'h>(
    worker: &Rc<Worker>,
    ledger: &Ledger,
    (address, head): (SocketAddr, &'h Head),
) -> Result<Place<'h>, ConnectError> {
    let sockets = ledger.mirror.sockets(worker);
    let connected = head.connect(&worker.mirrors, address, &sockets).await;
    match &connected {
        Ok(_) => ledger.mirror.breaker.connected(),
        // The mirror was not asked.
        Err(ConnectError::TooMany) => {}
        // What it did then is what we came to see.
        Err(error) if error.was_taken() => ledger.mirror.breaker.connected(),
        Err(_) => ledger.mirror.breaker.failed(clock::now()),
    }
    connected
}

/// What it is for a copy that there is no connection: one that the mirror took and ended is one of those that it ends.
fn unconnected(error: &ConnectError, head: &Head) -> Ended {
    match error {
        ConnectError::TooMany => Ended::Cut(DropReason::Connections),
        ConnectError::Silent => Ended::TimedOut,
        error if error.was_taken() && head.is_alone() => Ended::HungUp,
        error if error.was_taken() => Ended::Broken,
        _ => Ended::NotConnected,
    }
}

/// Reads the answer to its end, so that the connection lives on; a long one costs the connection, or its stream.
async fn drain(
    worker: &Rc<Worker>,
    (pooled, reset): (Pooled<CopyBody>, Option<ResetOnDrop<CopyBody>>),
    answer: Response<PeerBody<CopyBody>>,
) -> Ended {
    let (head, mut body) = answer.into_parts();
    let code = head.status.as_u16();
    let mut grpc_status = grpc_status(&head.headers);
    let mut bytes = headers::wire_size(15, &head.headers);
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) if error.is_reset() => return Ended::Reset,
            Err(_) => return Ended::Broken,
        };
        grpc_status = frame.trailers_ref().and_then(umbra_routing::grpc_status).or(grpc_status);
        let chunk = frame.data_ref().map_or(0, bytes::Bytes::len);
        read += chunk;
        bytes += chunk as u64;
        if read > worker.limits.shadow.answer_bytes {
            return Ended::Answered { code, grpc_status, bytes };
        }
    }
    if let Some(reset) = reset {
        reset.answered();
    }
    worker.mirrors.put(pooled, clock::now());
    Ended::Answered { code, grpc_status, bytes }
}
