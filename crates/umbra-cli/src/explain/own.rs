//! What a proxy answers itself: rules' own answers, aborts, preflights, and what goes wrong before anybody is asked.
//!
//! Takes: what was selected, and the request. Gives: what the client is told, which in gRPC is always HTTP 200 with a status
//! of its own (spec/istio.md 4.5). The proxy's own functions decide.

use http::StatusCode;
use umbra_routing::{BackendRef, CorsDecision, LocalAnswer, RequestHead, Selection, grpc_status_of, is_grpc};

/// An answer of the proxy's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) status: u16,
    pub(super) grpc_status: Option<u8>,
    pub(super) location: Option<String>,
}

impl Own {
    /// In the client's language.
    pub(super) fn said(status: StatusCode, head: &RequestHead<'_>) -> Self {
        if is_grpc(head.headers) { Self::grpc(grpc_status_of(status)) } else { Self::plain(status) }
    }

    fn grpc(status: u8) -> Self {
        Self { grpc_status: Some(status), ..Self::plain(StatusCode::OK) }
    }

    fn plain(status: StatusCode) -> Self {
        Self { status: status.as_u16(), grpc_status: None, location: None }
    }

    /// What a proxy is sure to answer before it asks anybody, in its order.
    pub(super) fn of(
        selection: &Selection<'_, BackendRef>,
        head: &RequestHead<'_>,
        port: u16,
    ) -> Option<Self> {
        let route = selection.route;
        match route.answer(head, selection.block, port) {
            Some(LocalAnswer::Direct { status, .. }) => return Some(Self::said(status, head)),
            Some(LocalAnswer::Redirect { status, location }) => {
                return Some(Self { location: Some(location), ..Self::said(status, head) });
            }
            None => {}
        }
        // What happens with the last number that can be drawn happens to every request.
        let last = &mut |bound: u64| bound - 1;
        if let Some(aborted) = route.abort(is_grpc(head.headers), last) {
            return Some(aborted.grpc_status.map_or(Self::plain(aborted.status), Self::grpc));
        }
        matches!(route.cors(head), CorsDecision::Answer(_)).then(|| Self::plain(StatusCode::OK))
    }
}
