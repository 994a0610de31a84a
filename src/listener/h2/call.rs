//! One stream: its head becomes a call, which ends at once when the client resets the stream.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};

use crate::error::Kind;
use crate::proxy::{self, Inbound};
use crate::wire::head::{Flaw, HeadError};
use crate::wire::{Body, Interim};

use super::body::Upload;
use super::{Origin, answer};

/// Header fields of one request, cookie crumbs counted.
const MAX_FIELDS: usize = 100;

/// Answers the request of one stream. Dropping this cancels the call and resets the stream.
pub(super) async fn serve(origin: Origin, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let Origin { worker, facts, presence } = origin;
    let (parts, stream) = request.into_parts();
    let (body, upload) = Upload::begin(stream, &parts.headers, Rc::clone(&presence)).await;
    let respond = InterimSender(RefCell::new(respond));
    let response = match inbound(parts, body, &respond) {
        Ok(inbound) => {
            let call = pin!(proxy::serve(worker, facts, inbound));
            match until_reset(call, &respond, &upload).await {
                Some(response) => response,
                None => return,
            }
        }
        Err(refused) => proxy::refuse(&worker, &facts, &refused),
    };
    upload.discard().await;
    answer::send(respond.0.into_inner(), response, &upload).await;
}

/// The way of all answers to one stream; of its interim ones while the final one is awaited.
struct InterimSender(RefCell<SendResponse<Bytes>>);

impl Interim for InterimSender {
    fn pass(&self, status: StatusCode, headers: HeaderMap) {
        let mut interim = http::Response::new(());
        *interim.status_mut() = status;
        *interim.headers_mut() = headers;
        if let Err(error) = self.0.borrow_mut().send_informational(interim) {
            tracing::debug!(%error, "an interim answer could not be sent");
        }
    }
}

/// Drives `call` while the client wants its answer; `None` once it does not.
async fn until_reset<T>(
    mut call: Pin<&mut impl Future<Output = T>>,
    respond: &InterimSender,
    upload: &Upload,
) -> Option<T> {
    std::future::poll_fn(|cx| {
        if let Poll::Ready(answer) = call.as_mut().poll(cx) {
            return Poll::Ready(Some(answer));
        }
        if upload.poll_expected(cx).is_ready() {
            respond.pass(StatusCode::CONTINUE, HeaderMap::new());
        }
        match respond.0.borrow_mut().poll_reset(cx) {
            // The crate itself has reset the stream, for a body that is no body: the call will read it and say so.
            Poll::Ready(_) if upload.fault().kind == Kind::BodyBroken => Poll::Pending,
            reset => reset.map(|_| None),
        }
    })
    .await
}

fn inbound(mut parts: Parts, body: Body, interim: &dyn Interim) -> Result<Inbound<'_>, HeadError> {
    let authority = authority(&parts.uri, &parts.headers)?;
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let head_bytes = list_size(&parts.headers) + target.len() + authority.len();
    if parts.headers.len() > MAX_FIELDS {
        return Err(HeadError::TooManyFields { limit: MAX_FIELDS });
    }
    if parts.headers.values().any(has_outer_blank) {
        let problem = "a field value begins or ends with a blank";
        return Err(HeadError::Malformed(Flaw::Field, problem));
    }
    // `te: trailers` is the one connection field that HTTP/2 allows (RFC 9113 8.2.2); gRPC servers insist on it.
    let keeps_te = parts.headers.get(header::TE).is_some_and(|te| te == "trailers");
    for name in [header::HOST, header::TE, header::EXPECT, header::CONTENT_LENGTH] {
        parts.headers.remove(name);
    }
    if keeps_te {
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let target = Bytes::copy_from_slice(target.as_bytes());
    Ok(Inbound {
        method: parts.method,
        authority: Some(authority),
        target,
        version: parts.version,
        headers: parts.headers,
        body,
        head_bytes,
        // A stream cannot become one: the gateway does not offer extended CONNECT (RFC 8441).
        websocket: false,
        interim,
    })
}

/// `:authority`, or `Host` where it is missing; two different ones are refused (RFC 9113 8.3.1).
fn authority(uri: &http::Uri, headers: &HeaderMap) -> Result<HeaderValue, HeadError> {
    let malformed = |problem| HeadError::Malformed(Flaw::Host, problem);
    let host = headers.get(header::HOST);
    match (uri.authority().map(|authority| authority.as_str()), host) {
        (Some(authority), Some(host)) if !authority.as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
            Err(malformed(":authority and host name different hosts"))
        }
        (Some(authority), _) => {
            HeaderValue::from_str(authority).map_err(|_| malformed(":authority is not a host"))
        }
        (None, Some(host)) => Ok(host.clone()),
        (None, None) => Err(malformed("the request names no host")),
    }
}

/// What RFC 9113 8.2.1 calls malformed and the `h2` crate lets through.
fn has_outer_blank(value: &HeaderValue) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_blank(value.as_bytes().first()) || is_blank(value.as_bytes().last())
}

fn list_size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum()
}
