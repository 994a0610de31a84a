//! The outer function of the request path: it always answers.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;

use futures_util::FutureExt;
use http::Response;

use crate::error::{Error, Kind};
use crate::wire::head::HeadError;

use super::context::Exchange;
use super::{ConnectionFacts, Inbound, ResponseBody, Worker, phases, respond};

/// Answers one call. Dropping the future cancels the call, upstream included; its record is written all the same.
pub async fn serve(
    worker: Rc<Worker>,
    connection: Rc<ConnectionFacts>,
    mut inbound: Inbound<'_>,
) -> Response<ResponseBody> {
    let mut exchange = Exchange::begin(&worker, &connection, &inbound);
    let outcome = {
        // Pinned here, since the wrappers would move the whole of it.
        let phases = pin!(phases::run(&worker, &connection, &mut exchange, &mut inbound));
        // A panic ends one call and not the connection's task. The exchange is only facts: it holds after an unwind.
        AssertUnwindSafe(phases).catch_unwind().await
    };
    match outcome {
        Ok(Ok(answer)) => respond::pass(exchange, answer),
        Ok(Err(error)) => respond::refuse(exchange, &error),
        Err(panic) => {
            let detail = panic_text(&*panic);
            respond::refuse(
                exchange,
                &Error::new(Kind::Internal, "the gateway failed on this call").with_detail(detail),
            )
        }
    }
}

/// Answers a request whose head was refused. One over a limit is a call, with a record; a malformed one never became
/// a call and is only counted.
pub fn refuse(
    worker: &Rc<Worker>,
    connection: &ConnectionFacts,
    refused: &HeadError,
) -> Response<ResponseBody> {
    let error = respond::head_refusal(refused);
    if let HeadError::Malformed(flaw, _) = *refused {
        worker.metrics.malformed(flaw);
        return respond::reject(&error);
    }
    respond::refuse(Exchange::nameless(worker, connection), &error)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("without a message"))
}
