//! HTTP/1 towards clients. What is not HTTP gets 400, a head that is too large 431, one that stalls 408, a transfer coding
//! that nobody here knows 501, and the connection ends.

use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, Version, header};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::client::Client;
use super::{Asked, ClientBody, Serving};
use crate::alarm::Alarm;
use crate::connection::Worker;
use crate::descriptors::Open;
use crate::forward::{self, AnswerBody};
use crate::http1::{Framing, HeadError, RequestHead, write};
use crate::upgrade;
use crate::version::HttpVersion;

/// What comes next on a connection.
enum Next {
    /// More bytes.
    More,
    /// Nothing any more.
    Gone,
    /// A head that has begun has not come to its end in time.
    Stalled,
}

/// Why a head is not served.
struct Wrong {
    /// For the counter.
    reason: &'static str,
    status: StatusCode,
    text: String,
}

impl Wrong {
    fn stalled() -> Self {
        // RFC 9110 section 15.5.9.
        let text = "the request's head did not come in time".into();
        Self { reason: "stalled", status: StatusCode::REQUEST_TIMEOUT, text }
    }
}

impl From<HeadError> for Wrong {
    fn from(error: HeadError) -> Self {
        let (reason, status) = match error {
            HeadError::Malformed(_) => ("malformed", StatusCode::BAD_REQUEST),
            HeadError::TooLarge => ("too_large", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            HeadError::UnknownCoding => ("malformed", StatusCode::NOT_IMPLEMENTED),
        };
        Self { reason, status, text: error.to_string() }
    }
}

/// What follows an answer.
enum Then {
    NextRequest,
    Close,
    /// The connection broke, or its client left.
    Gone,
    /// What follows is not HTTP.
    Tunnel(upgrade::Switched),
}

/// Serves a connection to its end.
pub(super) async fn serve(
    worker: Rc<Worker>,
    asked: Asked,
    peer: IpAddr,
    (stream, first, open): (TcpStream, Bytes, Open),
) {
    let with = (Rc::clone(&worker.recycled), worker.limits.head_bytes);
    let client = Client::new(stream, &first, open, with);
    drop(first);
    let serving = Serving::new(worker, asked, peer, HttpVersion::Http1);
    let unwanted = pin!(async {
        tokio::select! {
            () = serving.worker.silence_ends() => {}
            () = serving.worker.unwanted(|| serving.is_wanted()) => {}
            () = serving.idles() => {}
        }
    });
    let mut unwanted = Alarm::new(unwanted);
    let mut late = None;
    loop {
        let then = match &mut client.head() {
            Ok(Some(head)) => exchange(&serving, &client, head).await,
            Ok(None) => match next(&serving, &client, &mut unwanted, &mut late).await {
                Next::More => continue,
                Next::Gone => return,
                Next::Stalled => return refuse(&serving, &client, Wrong::stalled()).await,
            },
            Err(error) => return refuse(&serving, &client, (*error).into()).await,
        };
        late = None;
        match then {
            Then::NextRequest => {}
            Then::Close => return client.close().await,
            Then::Gone => return,
            Then::Tunnel(switched) => {
                let client = client.into_stream().expect("nothing of the request is left");
                return upgrade::join(client, switched).await;
            }
        }
    }
}

/// Waits for more of the next head, until `late` once it has begun. `unwanted` ends when a connection that says nothing is to
/// be closed.
async fn next(
    serving: &Serving,
    client: &Client,
    unwanted: &mut (impl Future<Output = ()> + Unpin),
    late: &mut Option<Instant>,
) -> Next {
    let is_idle = client.is_idle();
    let filled = if is_idle {
        client.rest();
        tokio::select! {
            // First: a request that has arrived is served, whatever else is to be done.
            biased;
            filled = client.fill() => filled,
            () = &mut *unwanted => return Next::Gone,
        }
    } else {
        let late = *late.get_or_insert_with(|| Instant::now() + serving.worker.limits.header_timeout);
        match tokio::time::timeout_at(late, client.fill()).await {
            Ok(filled) => filled,
            Err(_) => return Next::Stalled,
        }
    };
    match filled {
        Ok(1..) => Next::More,
        Ok(0) | Err(_) => {
            if !is_idle {
                serving.worker.metrics.bad_request("incomplete");
            }
            Next::Gone
        }
    }
}

async fn exchange(serving: &Rc<Serving>, client: &Rc<Client>, head: &mut RequestHead<ClientBody>) -> Then {
    let RequestHead { request, framing, keep_alive, expects_continue } = head;
    let asked = (request.version(), request.method() == Method::HEAD);
    *request.body_mut() = client.body(*framing, *expects_continue);
    let (persists, relayed) = {
        let mut answer = None;
        {
            // Pinned where it is: a future that is passed on is copied. And gone before the answer is written.
            let answering = pin!(forward::answer(serving, request, &mut answer));
            client.unless_gone(answering).await;
        }
        // Whatever is left of it, nobody reads it any more.
        *request.body_mut() = ClientBody::Empty;
        let Some(answer) = &mut answer else { return Then::Gone };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Box::pin(switch(client, answer)).await;
        }
        let (framing, persists) = begin(serving, client, (answer, asked), *keep_alive);
        let relayed = match framing {
            Framing::None => client.flush().await,
            _ => client.relay(answer.body_mut()).await,
        };
        (persists, relayed)
    };
    match relayed {
        Ok(()) if persists && client.body_is_over().await => Then::NextRequest,
        Ok(()) => Then::Close,
        Err(error) => {
            tracing::debug!(%error, "an answer did not get to its client whole");
            Then::Gone
        }
    }
}

/// Begins to write an answer: how its body is framed, and whether the connection goes on behind it.
fn begin(
    serving: &Serving,
    client: &Client,
    (answer, (version, is_head)): (&mut Response<AnswerBody>, (Version, bool)),
    keep_alive: bool,
) -> (Framing, bool) {
    let (status, mut headers) = (answer.status(), std::mem::take(answer.headers_mut()));
    let framing = write::framing_of_answer((status, &mut headers), answer.body(), (version, is_head));
    let wanted = !serving.worker.is_draining() && serving.is_in_force();
    let ours = keep_alive && wanted && !client.owes_continue() && !client.is_broken();
    let persists = ours && !answer.body().is_last() && framing != Framing::UntilClose;
    client.begin(|out| {
        write::answer(out, (status, &headers), framing, (version, persists));
        framing
    });
    client.recycled().put_map(headers);
    (framing, persists)
}

/// The primary has switched protocols.
async fn switch(client: &Client, answer: &mut Response<AnswerBody>) -> Then {
    let Some(switched) = answer.body_mut().take_switched() else { return Then::Gone };
    client.begin(|out| {
        let framing = Framing::None;
        write::answer(out, (answer.status(), answer.headers()), framing, (Version::HTTP_11, true));
        framing
    });
    match client.flush().await {
        Ok(()) => Then::Tunnel(switched),
        Err(_) => Then::Gone,
    }
}

/// Answers what is no request, and ends the connection.
async fn refuse(serving: &Serving, client: &Client, wrong: Wrong) {
    let Wrong { reason, status, text } = wrong;
    serving.worker.metrics.bad_request(reason);
    let headers = HeaderMap::from_iter([(header::CONTENT_LENGTH, (text.len() + 1).into())]);
    client.begin(|out| {
        let framing = Framing::None;
        write::answer(out, (status, &headers), framing, (Version::HTTP_11, false));
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
        framing
    });
    // One that does not read has nobody to tell.
    let flushed = tokio::time::timeout(serving.worker.limits.header_timeout, client.flush()).await;
    if matches!(flushed, Ok(Ok(()))) {
        client.close().await;
    }
}
