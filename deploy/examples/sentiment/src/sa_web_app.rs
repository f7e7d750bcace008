//! `sa-web-app`: the caller. Takes `POST /sentiment` and asks `sa-logic`; what comes back goes to the user as it is.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;

use crate::client::{Client, ClientError};
use crate::resolver::{ResolvConf, Resolver};
use crate::server::{self, Answer, ServerArgs};

/// The header that tells one request from another; passed on if the user sent it, never made up.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A sentence is short.
const LARGEST_BODY: usize = 1 << 20;
/// Longer than any case of `sa-logic`, so that a hang is seen as what it is.
const LIMIT: Duration = Duration::from_secs(60);

/// Flags of `sa-web-app`.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "sa-web-app",
    about = "Asks sa-logic what its users ask (`sa-web-app load` plays the users)"
)]
pub struct Args {
    /// Where sa-logic is.
    #[arg(long, env = "SA_LOGIC_API_URL", default_value = "http://sa-logic")]
    pub sa_logic_api_url: Uri,
    /// Connect to this address instead of what the URL's name resolves to.
    #[arg(long, env = "SA_LOGIC_ADDRESS")]
    pub sa_logic_address: Option<SocketAddr>,
    /// Whom to ask for names.
    #[arg(long, default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// Where and how to serve.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Why `sa-web-app` cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `--sa-logic-api-url` is of no use.
    #[error(transparent)]
    Url(#[from] ClientError),
    /// `--resolv-conf` cannot be read.
    #[error("{0}: {1}")]
    ResolvConf(PathBuf, std::io::Error),
}

/// The running program.
pub struct SaWebApp {
    sa_logic: Client,
    host: HeaderValue,
}

impl SaWebApp {
    /// The program that `args` describe; connects when first asked.
    ///
    /// # Errors
    /// When the URL or the resolver's configuration is of no use.
    pub fn new(args: &Args) -> Result<Arc<Self>, StartError> {
        let conf = ResolvConf::read(&args.resolv_conf)
            .map_err(|error| StartError::ResolvConf(args.resolv_conf.clone(), error))?;
        let sa_logic =
            Client::new(&args.sa_logic_api_url, args.sa_logic_address, Resolver::new(conf), LIMIT)?;
        let host =
            HeaderValue::from_str(sa_logic.authority().as_str()).expect("an authority is visible ASCII");
        Ok(Arc::new(Self { sa_logic, host }))
    }

    /// Answers one request.
    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => server::json(StatusCode::OK, &json!({})),
            (&Method::POST, "/sentiment") => self.sentiment(request).await,
            _ => server::json(StatusCode::NOT_FOUND, &json!({"error": "POST /sentiment is all there is"})),
        }
    }

    async fn sentiment(&self, request: Request<Incoming>) -> Answer {
        let id = request.headers().get(REQUEST_ID).cloned();
        let Ok(body) = Limited::new(request.into_body(), LARGEST_BODY).collect().await else {
            let error = json!({"error": "the body broke off or is over 1 MiB"});
            return server::json(StatusCode::PAYLOAD_TOO_LARGE, &error);
        };
        match self.sa_logic.request(self.question(id, body.to_bytes())).await {
            Ok(answer) => passed_on(answer),
            Err(error) => {
                server::json(StatusCode::BAD_GATEWAY, &json!({"error": format!("sa-logic: {error}")}))
            }
        }
    }

    fn question(&self, id: Option<HeaderValue>, body: Bytes) -> Request<Full<Bytes>> {
        let mut question = Request::new(Full::new(body));
        *question.method_mut() = Method::POST;
        *question.uri_mut() = Uri::from_static("/analyse/sentiment");
        let headers = question.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(id) = id {
            headers.insert(REQUEST_ID, id);
        }
        question
    }
}

/// Status, type and body; the connection's own headers stay behind.
fn passed_on(answer: Response<Bytes>) -> Answer {
    let (head, body) = answer.into_parts();
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = head.status;
    if let Some(kind) = head.headers.get(CONTENT_TYPE) {
        answer.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    answer
}
