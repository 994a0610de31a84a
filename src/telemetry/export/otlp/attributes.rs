//! What spans and logs say of a call: the stable HTTP semantic conventions
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>) where they have a name for it, `scoregate.*` for the rest.

use super::call::{Attempt, Call, host_and_port};
use super::protobuf::{Fields, Value};
use super::settings::GenAi;

/// The methods that the conventions know; another one is `_OTHER`, so that no caller makes up names.
const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];

/// Paths below a service that stand in a route as they are; of others only the service's part does.
const KNOWN_PATHS: [&str; 9] = [
    "",
    "/",
    "/score",
    "/swagger.json",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
    "/v1/responses",
];

/// What stands in a route for the rest of a path.
const ANY_PATH: &str = "/{path}";

/// Writes attributes into the repeated field `number`.
pub(super) struct Attributes<'a, 'b> {
    pub fields: &'a mut Fields<'b>,
    pub number: u32,
}

impl Attributes<'_, '_> {
    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.fields.attribute(self.number, key, Value::Text(value));
    }

    fn maybe(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    fn whole(&mut self, key: &str, value: impl Into<u64>) {
        self.fields.attribute(self.number, key, Value::Whole(value.into()));
    }

    fn milliseconds(&mut self, key: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.fields.attribute(self.number, key, Value::Number(value));
        }
    }

    /// All of a call.
    pub(super) fn call(&mut self, call: &Call<'_>, gen_ai: GenAi) {
        self.http(call);
        self.ours(call);
        match gen_ai {
            GenAi::Shown => self.gen_ai(call),
            GenAi::LeftOut => {}
        }
    }

    fn http(&mut self, call: &Call<'_>) {
        let (line, url) = (&call.line, call.url());
        self.method(call);
        self.maybe("url.scheme", url.scheme);
        self.text("url.path", url.path);
        self.maybe("url.query", url.query);
        self.maybe("server.address", url.host);
        if let Some(port) = url.port {
            self.whole("server.port", port);
        }
        self.maybe("http.route", route(call).as_deref());
        self.maybe("client.address", line.client_address.as_deref());
        self.maybe("user_agent.original", line.user_agent.as_deref());
        self.whole("http.response.status_code", line.status_code);
        self.maybe("network.protocol.version", version(call));
        self.whole("http.request.body.size", line.request_bytes);
        self.whole("http.response.body.size", line.response_bytes);
        self.maybe("error.type", call.failure());
    }

    fn method(&mut self, call: &Call<'_>) {
        let method = method(call);
        self.text("http.request.method", method);
        match call.line.method.as_deref() {
            Some(original) if original != method => self.text("http.request.method_original", original),
            _ => {}
        }
    }

    fn ours(&mut self, call: &Call<'_>) {
        let line = &call.line;
        self.text("scoregate.request.id", &line.request_id);
        self.maybe("scoregate.client_request.id", line.client_request_id.as_deref());
        self.maybe("scoregate.service", line.service.as_deref());
        self.maybe("scoregate.deployment", line.deployment.as_deref());
        self.maybe("scoregate.replica", line.replica.as_deref());
        self.maybe("scoregate.compute_type", line.compute_type.as_deref());
        self.maybe("scoregate.auth.type", line.auth_type.as_deref());
        self.maybe("scoregate.key.id", line.key_id.as_deref());
        self.maybe("scoregate.subject", line.subject.as_deref());
        if let Some(status) = line.model_status_code {
            self.whole("scoregate.model.status_code", status);
        }
        self.text("scoregate.reason", &line.reason);
        self.text("scoregate.ended_by", &line.ended_by);
        self.whole("scoregate.attempts", line.attempts);
        self.milliseconds("scoregate.duration_ms", Some(line.duration));
        self.milliseconds("scoregate.queue_ms", line.queue_ms);
        self.milliseconds("scoregate.connect_ms", line.connect_ms);
        self.milliseconds("scoregate.first_byte_ms", line.first_byte_ms);
        self.milliseconds("scoregate.stream_ms", line.stream_ms);
    }

    /// <https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/>, in development there.
    fn gen_ai(&mut self, call: &Call<'_>) {
        let line = &call.line;
        if line.model.is_none() && line.prompt_tokens.is_none() && line.completion_tokens.is_none() {
            return;
        }
        self.maybe("gen_ai.operation.name", operation(call.url().path));
        self.maybe("gen_ai.response.model", line.model.as_deref());
        if let Some(tokens) = line.prompt_tokens {
            self.whole("gen_ai.usage.input_tokens", tokens);
        }
        if let Some(tokens) = line.completion_tokens {
            self.whole("gen_ai.usage.output_tokens", tokens);
        }
    }

    /// All of one attempt.
    pub(super) fn attempt(&mut self, call: &Call<'_>, attempt: &Attempt<'_>) {
        self.method(call);
        let (host, port) = attempt.replica.map_or((None, None), host_and_port);
        self.maybe("server.address", host);
        if let Some(port) = port {
            self.whole("server.port", port);
        }
        if let Some(status) = attempt.status {
            self.whole("http.response.status_code", status);
        }
        if attempt.number > 1 {
            self.whole("http.request.resend_count", attempt.number - 1);
        }
        self.maybe("error.type", attempt_error(attempt).as_deref());
        self.text("scoregate.request.id", &call.line.request_id);
        self.maybe("scoregate.service", call.line.service.as_deref());
        self.maybe("scoregate.deployment", call.line.deployment.as_deref());
    }
}

/// Why an attempt failed: the reason, or else the status that says so.
pub(super) fn attempt_error(attempt: &Attempt<'_>) -> Option<String> {
    let by_status = || attempt.status.filter(|status| *status >= 400).map(|status| status.to_string());
    attempt.error.map(str::to_owned).or_else(by_status)
}

/// The method, as far as the conventions know it.
pub(super) fn method(call: &Call<'_>) -> &'static str {
    let method = call.line.method.as_deref().unwrap_or_default();
    METHODS.into_iter().find(|known| *known == method).unwrap_or("_OTHER")
}

/// `1.1`
pub(super) fn version<'a>(call: &'a Call<'_>) -> Option<&'a str> {
    call.line.protocol.as_deref()?.strip_prefix("HTTP/")
}

/// The service's part of the path, and of the rest what is well known: as many routes as services and profiles make, however
/// many paths callers make up. None where no service was found.
pub(super) fn route(call: &Call<'_>) -> Option<String> {
    let service = call.line.service.as_deref()?;
    let path = call.url().path;
    let below = path.strip_prefix("/api/v1/service/").and_then(|rest| rest.strip_prefix(service));
    let (prefix, below) = match below.filter(|below| below.is_empty() || below.starts_with('/')) {
        Some(below) => (&path[..path.len() - below.len()], below),
        None => ("", path),
    };
    let below = KNOWN_PATHS.into_iter().find(|known| *known == below).unwrap_or(ANY_PATH);
    Some(format!("{prefix}{below}"))
}

fn operation(path: &str) -> Option<&'static str> {
    let operations =
        [("/chat/completions", "chat"), ("/completions", "text_completion"), ("/embeddings", "embeddings")];
    operations.into_iter().find(|(end, _)| path.ends_with(end)).map(|(_, name)| name)
}
