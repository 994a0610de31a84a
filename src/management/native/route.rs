//! One declaration per route: the router and the OpenAPI document are both made from it, so that neither can be wrong about
//! the other.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{ConnectInfo, RawPathParams, Request, State};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::call::{Call, Knock};
use super::problem::render;
use crate::catalog::Action;
use crate::management::http::Api;
use crate::management::{Caller, Refusal};

/// What a handler gives.
pub(super) type Answer = Result<Response, Refusal>;

type Pending = Pin<Box<dyn Future<Output = Answer> + Send>>;
/// Makes the schema of a type.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One method of one path.
#[derive(Clone)]
pub(super) struct Route {
    pub method: Method,
    pub path: &'static str,
    /// The operation's name in the document.
    pub id: &'static str,
    pub summary: &'static str,
    /// The actions of which the caller needs one: which one, the kind of the service decides. Empty: any caller.
    pub needs: &'static [Action],
    pub query: &'static [Parameter],
    pub conditions: Conditions,
    pub body: Option<BodyOf>,
    /// Statuses of success with what they carry.
    pub answers: Vec<(u16, Option<SchemaOf>)>,
    handler: Handler,
}

/// One parameter of a query.
#[derive(Debug)]
pub(super) struct Parameter {
    pub name: &'static str,
    pub about: &'static str,
    pub kind: ParameterKind,
}

/// What a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ParameterKind {
    /// A text, once.
    Text,
    /// A text, any number of times.
    Texts,
    /// A whole number of at least 1.
    Number,
    /// A point in time as RFC 3339 writes it.
    Time,
}

/// Which preconditions a write takes (RFC 9110 section 13.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conditions {
    /// None.
    None,
    /// `If-Match`.
    Match,
    /// `If-Match` and `If-None-Match: *`.
    MatchOrAbsent,
}

/// What a request carries.
#[derive(Clone, Copy)]
pub(super) struct BodyOf {
    pub schema: SchemaOf,
    pub content_type: &'static str,
    pub required: bool,
}

#[derive(Clone)]
enum Handler {
    Caller(Arc<dyn Fn(Call) -> Pending + Send + Sync>),
    Anybody(Arc<dyn Fn(Knock) -> Pending + Send + Sync>),
}

impl Route {
    /// A route for authenticated callers.
    pub fn new<F, P>(method: Method, path: &'static str, id: &'static str, handler: F) -> Self
    where
        F: Fn(Call) -> P + Send + Sync + 'static,
        P: Future<Output = Answer> + Send + 'static,
    {
        Self::with(method, path, id, Handler::Caller(Arc::new(move |call| Box::pin(handler(call)))))
    }

    /// A route that judges the credential itself.
    pub fn open<F, P>(method: Method, path: &'static str, id: &'static str, handler: F) -> Self
    where
        F: Fn(Knock) -> P + Send + Sync + 'static,
        P: Future<Output = Answer> + Send + 'static,
    {
        Self::with(method, path, id, Handler::Anybody(Arc::new(move |knock| Box::pin(handler(knock)))))
    }

    fn with(method: Method, path: &'static str, id: &'static str, handler: Handler) -> Self {
        Self {
            method,
            path,
            id,
            summary: "",
            needs: &[],
            query: &[],
            conditions: Conditions::None,
            body: None,
            answers: Vec::new(),
            handler,
        }
    }

    pub fn summary(self, summary: &'static str) -> Self {
        Self { summary, ..self }
    }

    pub fn needs(self, needs: &'static [Action]) -> Self {
        Self { needs, ..self }
    }

    pub fn query(self, query: &'static [Parameter]) -> Self {
        Self { query, ..self }
    }

    pub fn conditions(self, conditions: Conditions) -> Self {
        Self { conditions, ..self }
    }

    /// The request carries a `T`.
    pub fn takes<T: JsonSchema>(self) -> Self {
        let body = BodyOf { schema: schema_of::<T>, content_type: JSON, required: true };
        Self { body: Some(body), ..self }
    }

    /// The request may carry a `T`.
    pub fn may_take<T: JsonSchema>(self) -> Self {
        let body = BodyOf { schema: schema_of::<T>, content_type: JSON, required: false };
        Self { body: Some(body), ..self }
    }

    /// The request carries a merge patch (RFC 7396): any object; what becomes of it is checked as a whole.
    pub fn takes_patch(self) -> Self {
        let schema = |_: &mut SchemaGenerator| json_schema!({ "type": "object" });
        Self {
            body: Some(BodyOf { schema, content_type: "application/merge-patch+json", required: true }),
            ..self
        }
    }

    /// Success may be `status` with a `T`.
    pub fn gives<T: JsonSchema>(mut self, status: u16) -> Self {
        self.answers.push((status, Some(schema_of::<T>)));
        self
    }

    /// Success may be `status` with nothing.
    pub fn gives_nothing(mut self, status: u16) -> Self {
        self.answers.push((status, None));
        self
    }

    /// Whether the route judges the credential itself.
    pub const fn is_open(&self) -> bool {
        matches!(self.handler, Handler::Anybody(_))
    }

    /// The route for the router.
    pub fn endpoint(&self) -> MethodRouter<Api> {
        // The methods of the table are all known to axum; what is not would answer 405.
        let filter = MethodFilter::try_from(self.method.clone()).unwrap_or(MethodFilter::TRACE);
        let route = self.clone();
        match &self.handler {
            Handler::Caller(handler) => {
                let handler = Arc::clone(handler);
                let endpoint = async move |State(api): State<Api>,
                                           Extension(caller): Extension<Caller>,
                                           path: Result<RawPathParams, RawPathParamsRejection>,
                                           request: Request| {
                    let answer = match Call::new(&route, api, caller, path, request) {
                        Ok(call) => handler(call).await,
                        Err(refusal) => Err(refusal),
                    };
                    answer.unwrap_or_else(|refusal| render(&refusal))
                };
                on(filter, endpoint)
            }
            Handler::Anybody(handler) => {
                let handler = Arc::clone(handler);
                let endpoint = async move |State(api): State<Api>,
                                           ConnectInfo(client): ConnectInfo<std::net::SocketAddr>,
                                           request: Request| {
                    let answer = handler(Knock::new(api, client.ip(), &request)).await;
                    answer.unwrap_or_else(|refusal| render(&refusal))
                };
                on(filter, endpoint)
            }
        }
    }
}

const JSON: &str = "application/json";

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}
