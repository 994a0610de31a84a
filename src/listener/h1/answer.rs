//! Writing one answer: its head, its body as it comes, and what becomes of the connection then.

use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{Response, StatusCode, Version};
use http_body::Body as _;
use tokio::time::Instant;

use crate::error::{Error, Kind};
use crate::listener::client_stalled;
use crate::proxy::ResponseBody;
use crate::wire::framing::{self, CHUNK_END, Framing};
use crate::wire::head::{self, AnswerHead, ConnectionHeader};

use super::body::{Expectation, InboundBody};
use super::wire::Wire;
use super::{After, Asked, Connection, DISCARD_LIMIT, GOODBYE, LINGER};

impl Connection {
    /// Writes `response` and says what becomes of the connection.
    pub(super) async fn answer(&mut self, response: Response<ResponseBody>, asked: Asked) -> After {
        match self.try_answer(response, asked).await {
            Ok(after) => after,
            // All of a refusal is at hand: it does not break.
            Err(refusal) => self.try_answer(*refusal, asked).await.unwrap_or(After::Abort),
        }
    }

    /// The same, or the refusal that takes the answer's place: it broke before a byte of its head was out.
    async fn try_answer(
        &mut self,
        response: Response<ResponseBody>,
        asked: Asked,
    ) -> Result<After, Box<Response<ResponseBody>>> {
        if response.body().is_tunnel() {
            return Ok(self.switch(response).await);
        }
        let (parts, mut body) = response.into_parts();
        let framing = answer_framing(parts.status, &body, asked);
        let keep_alive = asked.keep_alive
            && !self.worker.drain.is_draining()
            && !matches!(framing, Framing::UntilClose)
            && self.can_reuse(parts.status, asked.expectation);
        let connection = if keep_alive { ConnectionHeader::KeepAlive } else { ConnectionHeader::Close };
        let before = {
            let wire = &mut *self.wire.borrow_mut();
            wire.has_sent = false;
            let before = wire.outbox.len();
            wire.outbox.reserve(ANSWER_HEAD);
            let Parts { status, headers, .. } = &parts;
            let head = AnswerHead { version: asked.version, status: *status, headers, framing, connection };
            head::encode_response(&mut wire.outbox, &head);
            before
        };
        let written = if asked.is_head || matches!(framing, Framing::None) {
            body.before_end();
            self.write_end().await
        } else {
            self.write_body(&mut body, framing).await
        };
        match written {
            Ok(()) if keep_alive && self.discard_rest().await => Ok(After::KeepAlive),
            Ok(()) => Ok(After::Close),
            Err(Fault::Client(error)) => {
                body.break_off(&error);
                Ok(After::Abort)
            }
            Err(Fault::Answer(error)) => {
                if !self.wire.borrow().has_sent {
                    self.wire.borrow_mut().outbox.truncate(before);
                    return Err(Box::new(body.into_refusal(&error)));
                }
                // What is counted as handed over goes out before the cut, as far as it can without waiting.
                let flush = |cx: &mut Context<'_>| Poll::Ready(self.wire.borrow_mut().poll_flush(cx));
                let _ = std::future::poll_fn(flush).await;
                Ok(After::Abort)
            }
        }
    }

    /// Writes a 101, after which the connection is a tunnel.
    async fn switch(&mut self, response: Response<ResponseBody>) -> After {
        let (Parts { status, headers, .. }, body) = response.into_parts();
        let patience = body.write_patience();
        let Some(tunnel) = body.into_tunnel() else { return After::Abort };
        let head = AnswerHead {
            version: Version::HTTP_11,
            status,
            headers: &headers,
            framing: Framing::None,
            connection: ConnectionHeader::WebSocket,
        };
        head::encode_response(&mut self.wire.borrow_mut().outbox, &head);
        match self.write_end_within(patience).await {
            Ok(()) => After::Tunnel(Box::new(tunnel)),
            Err(error) => {
                tunnel.break_off(&error);
                After::Abort
            }
        }
    }

    /// Whether the rest of the request body, if any, will surely come and is short enough to be thrown away. It will not
    /// from a client that has stalled (408); and one that asked first and was refused may send its body or leave it
    /// (RFC 9110 10.1.1): what comes then could be either.
    fn can_reuse(&self, status: StatusCode, expectation: Expectation) -> bool {
        let wire = self.wire.borrow();
        wire.decoder.as_ref().is_none_or(|decoder| {
            let will_come = status != StatusCode::REQUEST_TIMEOUT && expectation == Expectation::None;
            will_come && decoder.remaining().is_some_and(|rest| rest <= DISCARD_LIMIT)
        })
    }

    /// Writes the whole body.
    async fn write_body(&mut self, body: &mut ResponseBody, framing: Framing) -> Result<(), Fault> {
        let patience = body.write_patience();
        let mut left = match framing {
            Framing::Length(length) => Some(length),
            Framing::None | Framing::Chunked | Framing::UntilClose => None,
        };
        loop {
            let frame = match self.next_frame(body).await {
                Next::Frame(frame) => frame,
                Next::End => break,
                Next::Broken(error) => return Err(Fault::Answer(error)),
                Next::Gone => return Err(Fault::Client(client_gone())),
            };
            match frame.into_data() {
                Ok(mut data) => {
                    left = left.map(|left| left.saturating_sub(data.len() as u64));
                    // With the last of its length the client has the answer, though the replica may not have ended it.
                    let is_over = left == Some(0) && body.before_end();
                    self.send(&mut data, framing, patience).await.map_err(Fault::Client)?;
                    if is_over {
                        break;
                    }
                }
                Err(frame) => {
                    // Trailers travel over h2 only: an HTTP/1 client has not asked for them.
                    drop(frame);
                }
            }
        }
        body.before_end();
        if matches!(framing, Framing::Chunked) {
            framing::encode_last_chunk(&mut self.wire.borrow_mut().outbox, None);
        }
        self.write_end_within(patience).await.map_err(Fault::Client)
    }

    /// The next frame of the answer; flushes what is written before it waits, and notices a client that left.
    async fn next_frame(&self, body: &mut ResponseBody) -> Next {
        std::future::poll_fn(|cx| {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => return Poll::Ready(Next::Frame(frame)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Next::Broken(error)),
                Poll::Ready(None) => return Poll::Ready(Next::End),
                Poll::Pending => {}
            }
            let wire = &mut *self.wire.borrow_mut();
            if let Poll::Ready(Err(_)) = wire.poll_flush(cx) {
                return Poll::Ready(Next::Gone);
            }
            if wire.request_is_whole() && wire.poll_gone(cx).is_ready() {
                return Poll::Ready(Next::Gone);
            }
            Poll::Pending
        })
        .await
    }

    /// Sends one piece. Small ones wait in the outbox for the next flush, so that head and body leave together.
    async fn send(&mut self, data: &mut Bytes, framing: Framing, patience: Duration) -> Result<(), Error> {
        if data.is_empty() {
            // HTTP/2 replicas end with such a piece; as a chunk it would be a second end of the body (RFC 9112 7.1).
            return Ok(());
        }
        {
            let outbox = &mut self.wire.borrow_mut().outbox;
            let chunked = matches!(framing, Framing::Chunked);
            if chunked {
                framing::encode_chunk_head(outbox, data.len());
            }
            if data.len() <= COPY_LIMIT {
                outbox.extend_from_slice(data);
                if chunked {
                    outbox.extend_from_slice(CHUNK_END);
                }
                if outbox.len() <= 2 * COPY_LIMIT {
                    return Ok(());
                }
                data.clear();
            }
        }
        let copied = data.is_empty();
        self.writing(patience, |wire, cx| wire.poll_send(cx, data)).await?;
        if !copied && matches!(framing, Framing::Chunked) {
            self.wire.borrow_mut().outbox.extend_from_slice(CHUNK_END);
        }
        Ok(())
    }

    async fn write_end(&mut self) -> Result<(), Fault> {
        self.write_end_within(GOODBYE).await.map_err(Fault::Client)
    }

    async fn write_end_within(&mut self, patience: Duration) -> Result<(), Error> {
        self.writing(patience, Wire::poll_flush).await
    }

    /// Drives a write; the client must take something within every `patience`.
    async fn writing(
        &mut self,
        patience: Duration,
        mut write: impl FnMut(&mut Wire, &mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Result<(), Error> {
        self.timer.clear();
        std::future::poll_fn(|cx| {
            let wire = &mut *self.wire.borrow_mut();
            match write(wire, cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(client_gone().with_detail(error))),
                Poll::Pending => {}
            }
            // Every wake-up of a pending write means that the client took something, or that time is up.
            if self.timer.is_set() && self.timer.poll_expired(cx).is_ready() {
                return Poll::Ready(Err(client_stalled(patience)));
            }
            self.timer.set(Instant::now() + patience);
            self.timer.poll_expired(cx).map(|()| Err(client_gone()))
        })
        .await
    }

    /// Reads what is left of a request body that nobody wanted. `false`: it did not come, or is broken.
    async fn discard_rest(&mut self) -> bool {
        if self.wire.borrow().request_is_whole() {
            return true;
        }
        let rest = pin!(InboundBody::new(Rc::clone(&self.wire), Framing::None, Expectation::None));
        tokio::time::timeout(LINGER, discard(rest)).await.unwrap_or(false)
    }
}

/// Pieces up to this size are copied behind the head or the last piece; larger ones are written from where they are.
const COPY_LIMIT: usize = 16 * 1024;

/// Room for the head of an answer and a small body, taken at once.
const ANSWER_HEAD: usize = 1024;

/// What waiting for the next piece of an answer brought.
enum Next {
    Frame(http_body::Frame<Bytes>),
    End,
    Broken(Error),
    Gone,
}

/// Why an answer was not written to its end.
enum Fault {
    /// The client's doing.
    Client(Error),
    /// The answer itself broke, and its record says so.
    Answer(Error),
}

async fn discard(mut body: Pin<&mut InboundBody>) -> bool {
    loop {
        match std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            Some(Ok(_)) => {}
            Some(Err(_)) => return false,
            None => return true,
        }
    }
}

fn answer_framing(status: StatusCode, body: &ResponseBody, asked: Asked) -> Framing {
    if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED || status.is_informational() {
        return Framing::None;
    }
    match body.size_hint().exact() {
        Some(length) => Framing::Length(length),
        None if asked.version == Version::HTTP_11 => Framing::Chunked,
        None => Framing::UntilClose,
    }
}

fn client_gone() -> Error {
    Error::new(Kind::ClientGone, "the client left before its answer was complete")
}
