//! One call as its handler sees it: path, query, preconditions and body, all read strictly.

use std::net::IpAddr;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request};
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use secrecy::SecretString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::route::{Conditions, Parameter, ParameterKind, Route};
use crate::management::http::{Api, bearer, etag, facts, precondition, request as strict};
use crate::management::operations::{Page, Precondition, Written};
use crate::management::{Caller, Cause, Operations, Refusal, RequestFacts};

/// Largest page.
const MAX_PAGE: usize = 1000;

/// Part of a list's query.
pub(super) const LIMIT: Parameter = Parameter {
    name: "limit",
    about: "Items on the page, 1 to 1000; 100 if not given.",
    kind: ParameterKind::Number,
};
/// Part of a list's query.
pub(super) const CURSOR: Parameter = Parameter {
    name: "cursor",
    about: "`next` of the page before; absent on the first page.",
    kind: ParameterKind::Text,
};

/// An authenticated call.
pub(super) struct Call {
    api: Api,
    caller: Caller,
    path: Vec<(String, String)>,
    query: Vec<(String, String)>,
    conditions: Conditions,
    parts: Parts,
    body: Body,
}

impl Call {
    /// Takes a request apart; refuses a query that the route does not declare.
    pub fn new(
        route: &Route,
        api: Api,
        caller: Caller,
        path: Result<RawPathParams, RawPathParamsRejection>,
        request: Request,
    ) -> Result<Self, Refusal> {
        let path = path.map_err(|_| Refusal::invalid("path", "is not UTF-8"))?;
        let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let (parts, body) = request.into_parts();
        let query = query(parts.uri.query().unwrap_or_default(), route.query)?;
        Ok(Self { api, caller, path, query, conditions: route.conditions, parts, body })
    }

    /// Who calls.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// A part of the path.
    pub fn path(&self, name: &str) -> String {
        let found = self.path.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// A parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.parameters(name).next().map(str::to_owned)
    }

    /// A parameter of the query that may be there several times.
    pub fn parameters<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.query.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A point in time of the query.
    pub fn time(&self, name: &str) -> Result<Option<OffsetDateTime>, Refusal> {
        self.parameter(name).map(|text| instant(name, &text)).transpose()
    }

    /// Which page is asked for.
    pub fn page(&self) -> Result<Page, Refusal> {
        let limit = match self.parameter("limit") {
            None => Page::default().limit,
            Some(text) => {
                text.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit)).ok_or_else(|| {
                    Refusal::invalid("limit", format!("'{text}' is no whole number from 1 to {MAX_PAGE}"))
                })?
            }
        };
        Ok(Page { limit, cursor: self.parameter("cursor") })
    }

    /// What must be true for the write to happen.
    pub fn precondition(&self) -> Result<Precondition, Refusal> {
        let precondition = precondition(&self.parts.headers)?;
        match (self.conditions, precondition) {
            (_, Precondition::None) | (Conditions::MatchOrAbsent, _) => Ok(precondition),
            (Conditions::Match, Precondition::Present | Precondition::Version(_)) => Ok(precondition),
            // A condition that is not looked at would be a lie.
            (Conditions::None, _) => {
                Err(Refusal::invalid("if-match", "is not for this operation; leave it out"))
            }
            (Conditions::Match, Precondition::Absent) => {
                Err(Refusal::invalid("if-none-match", "is not for this operation; leave it out"))
            }
        }
    }

    /// Reads the body; the rest of the call stays.
    pub async fn body<T: DeserializeOwned>(&mut self) -> Result<T, Refusal> {
        let body = std::mem::take(&mut self.body);
        let mut request = Request::new(body);
        if let Some(content_type) = self.parts.headers.get(header::CONTENT_TYPE) {
            request.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
        }
        strict(request).await
    }

    /// Runs an operation.
    pub async fn run<T, F>(self, operation: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&Operations, &Caller) -> Result<T, Refusal> + Send + 'static,
    {
        let caller = self.caller;
        self.api.run(move |operations| operation(operations, &caller)).await
    }
}

/// A call of somebody who is not authenticated yet.
pub(super) struct Knock {
    api: Api,
    facts: RequestFacts,
    secret: Result<SecretString, Refusal>,
}

impl Knock {
    pub fn new(api: Api, client: IpAddr, request: &Request) -> Self {
        Self { api, facts: facts(request, client), secret: bearer(request.headers()) }
    }

    /// Runs an operation with the secret of `Authorization: Bearer`.
    pub async fn run<T, F>(self, operation: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&Operations, &SecretString, RequestFacts) -> Result<T, Refusal> + Send + 'static,
    {
        let (secret, facts) = (self.secret?, self.facts);
        self.api.run(move |operations| operation(operations, &secret, facts)).await
    }
}

/// What this API says of a refused write: `If-None-Match: *` on something that is there is a failed precondition
/// (RFC 9110 section 13.1.2), where SDKs are told that the name is taken.
pub(super) fn judged(precondition: Precondition) -> impl Fn(Refusal) -> Refusal {
    move |refusal| match (precondition, refusal.cause, &refusal.target) {
        (Precondition::Absent, Cause::AlreadyExists, None) => {
            Refusal { cause: Cause::PreconditionFailed, ..refusal }
        }
        _ => refusal,
    }
}

/// An answer that carries `value`.
pub(super) fn ok(value: impl Serialize) -> Response {
    Json(value).into_response()
}

/// The answer to a write: 201 for what was not there.
pub(super) fn written(value: impl Serialize, written: Written) -> Response {
    let status = match written {
        Written::Created => StatusCode::CREATED,
        Written::Replaced => StatusCode::OK,
    };
    (status, Json(value)).into_response()
}

/// An answer without a body.
pub(super) fn nothing() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// Tells the version of what `response` carries.
pub(super) fn versioned(mut response: Response, version: u64) -> Response {
    response.headers_mut().insert(header::ETAG, etag(version));
    response
}

/// Says where what was made is.
pub(super) fn located(mut response: Response, path: &str) -> Response {
    if let Ok(path) = HeaderValue::from_str(path) {
        response.headers_mut().insert(header::LOCATION, path);
    }
    response
}

/// A point in time as RFC 3339 writes it.
pub(super) fn instant(field: &str, text: &str) -> Result<OffsetDateTime, Refusal> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| Refusal::invalid(field, "is no point in time; write one such as 2026-01-31T12:00:00Z"))
}

/// Takes a query apart: only what is declared, and once unless declared otherwise.
fn query(text: &str, declared: &[Parameter]) -> Result<Vec<(String, String)>, Refusal> {
    let mut query: Vec<(String, String)> = Vec::new();
    for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
        let Some(parameter) = declared.iter().find(|parameter| parameter.name == name) else {
            let known: Vec<_> = declared.iter().map(|parameter| parameter.name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Refusal::invalid(
                name,
                format!("is no parameter of this operation; known are: {known}"),
            ));
        };
        if parameter.kind != ParameterKind::Texts && query.iter().any(|(known, _)| *known == name) {
            return Err(Refusal::invalid(name, "is there twice; send it once"));
        }
        query.push((name.into_owned(), value.into_owned()));
    }
    Ok(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_holds_what_is_declared_and_nothing_twice() {
        const TAG: Parameter = Parameter { name: "tag", about: "", kind: ParameterKind::Texts };
        let declared = [LIMIT, TAG];
        let read = |text| query(text, &declared);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            read("limit=5&tag=a%3Db&tag=c"),
            Ok(vec![pair("limit", "5"), pair("tag", "a=b"), pair("tag", "c"),])
        );
        assert_eq!(read("limit=5&limit=5").unwrap_err().target.as_deref(), Some("limit"));
        assert_eq!(read("limits=5").unwrap_err().target.as_deref(), Some("limits"));
        assert_eq!(query("", &[]), Ok(vec![]));
    }
}
