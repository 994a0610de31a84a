//! From a path under a service to what it means there: the paths that the service opens, and none but these.
//!
//! Nothing is decoded here: a path is compared as it is passed on, so that gateway and container cannot read it in two ways.

use std::sync::Arc;

use bytes::Bytes;

use crate::catalog::{Endpoint, Methods, Profile};
use crate::error::{Error, Kind};

use super::{SERVICE_PREFIX, Target};

/// What one service opens beside `/score`, `/swagger.json` and `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenPaths {
    /// The kind of server in its containers.
    pub profile: Profile,
    /// Further paths, each passed on as it is.
    pub score_paths: Box<[Arc<str>]>,
    /// gRPC services (`package.Service`) and single methods of them (`package.Service/Method`).
    pub grpc: Box<[Arc<str>]>,
    /// Whether the gRPC methods of the profile are open as well: its replicas speak HTTP/2.
    pub profile_grpc: bool,
}

impl OpenPaths {
    /// Most `score_paths`, and most entries of `grpc`, of one service.
    pub const MOST: usize = 100;

    /// What `path` means under the service, where it begins with `/`.
    ///
    /// # Errors
    /// [`Kind::UnknownPath`] if the service does not open it.
    pub fn endpoint(&self, path: &str) -> Result<Endpoint, Error> {
        match path {
            "/score" => Ok(Endpoint::Score),
            "/swagger.json" => Ok(Endpoint::Swagger),
            "/" => Ok(Endpoint::Health),
            _ => self.further(path).ok_or_else(|| self.closed()),
        }
    }

    fn further(&self, path: &str) -> Option<Endpoint> {
        let mut patterns = self.profile.opens().iter();
        if let Some((_, methods)) = patterns.find(|(pattern, _)| fits(pattern, path))
            && !self.profile.closes().contains(&path)
        {
            return Some(Endpoint::Open(*methods));
        }
        if self.score_paths.iter().any(|open| **open == *path) {
            return Some(Endpoint::Open(Methods::GetAndPost));
        }
        self.opens_grpc(path).then_some(Endpoint::Grpc)
    }

    fn opens_grpc(&self, path: &str) -> bool {
        if self.grpc.is_empty() && !self.profile_grpc {
            return false;
        }
        let Some(method) = GrpcMethod::parse(path) else { return false };
        self.grpc.iter().any(|open| **open == *method.whole || **open == *method.service)
            || (self.profile_grpc && self.profile.opens_grpc().contains(&method.whole))
    }

    fn closed(&self) -> Error {
        let mut message = "a service has the paths score, swagger.json and / only".to_owned();
        if !self.profile.opens().is_empty() {
            message = format!(
                "a service of profile {} has the paths score, swagger.json, /",
                self.profile.as_str()
            );
            self.profile.opens().iter().for_each(|(pattern, _)| message.extend([", ", *pattern]));
            message.push_str(" only");
        }
        Error::new(Kind::UnknownPath, message)
    }
}

/// Why `path` cannot stand after `others` in `score_paths`; `None` if it can.
#[must_use]
pub fn score_path_problem<T: AsRef<str>>(path: &str, others: &[T]) -> Option<String> {
    if !path.starts_with('/') || path.contains('?') {
        return Some(format!("'{path}' is no path; write one that begins with '/' and has no '?'"));
    }
    if let Err(error) = Target::parse(Bytes::copy_from_slice(path.as_bytes())) {
        return Some(format!("'{path}' could be read in two ways: {}; write it plainly", error.message));
    }
    if path.contains(['{', '}', '*']) {
        return Some(format!("'{path}' is a pattern; list each path by itself"));
    }
    if matches!(path, "/" | "/swagger.json") {
        return Some(format!("'{path}' is open already, at a path that the deployment sets; remove it"));
    }
    if path.starts_with(SERVICE_PREFIX) {
        return Some(format!("'{path}' begins as the path form of services does; no call could mean it"));
    }
    let twice = others.iter().any(|other| other.as_ref() == path);
    twice.then(|| format!("'{path}' is in this list already; remove it"))
}

/// Why `entry` cannot stand after `others` in `grpc`; `None` if it can.
#[must_use]
pub fn grpc_problem<T: AsRef<str>>(entry: &str, others: &[T]) -> Option<String> {
    let as_method = format!("/{entry}");
    let as_service = format!("/{entry}/Method");
    if GrpcMethod::parse(&as_method).or(GrpcMethod::parse(&as_service)).is_none() {
        return Some(format!(
            "'{entry}' is no gRPC service; write package.Service or package.Service/Method"
        ));
    }
    let twice = others.iter().any(|other| other.as_ref() == entry);
    twice.then(|| format!("'{entry}' is in this list already; remove it"))
}

/// Whether `path` fits `pattern`, segment by segment.
fn fits(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some(pattern), Some(segment)) if pattern == segment || is_name_before(pattern, segment) => {}
            _ => return false,
        }
    }
}

/// Whether `segment` is what `pattern` says: `{}`, a name, and what follows it.
fn is_name_before(pattern: &str, segment: &str) -> bool {
    let Some(suffix) = pattern.strip_prefix("{}") else { return false };
    let Some(name) = segment.strip_suffix(suffix) else { return false };
    // `a:explain:predict` would leave it to the server which verb is meant.
    is_name(name) && (suffix.is_empty() || !name.contains([':', '%']))
}

/// Whether a segment can be a name and nothing else. [`Target`] has refused escapes of letters, slashes and controls; what is
/// left that a server could read as something else once it has decoded it is an escaped `?` or `#`, and escapes beyond ASCII
/// (an overlong slash, or a full-width one that is folded to `/`).
fn is_name(segment: &str) -> bool {
    let escapes = segment.split('%').skip(1);
    let mut bytes = escapes.map(|rest| rest.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()));
    !segment.is_empty()
        && bytes.all(|byte| byte.is_some_and(|byte| byte.is_ascii() && !matches!(byte, b'?' | b'#')))
}

/// A path of gRPC over HTTP/2: `/` service `/` method, where the names are Protobuf's.
struct GrpcMethod<'a> {
    /// `package.Service/Method`.
    whole: &'a str,
    /// `package.Service`.
    service: &'a str,
}

impl<'a> GrpcMethod<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        let whole = path.strip_prefix('/')?;
        let (service, method) = whole.split_once('/')?;
        let name =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        (name(method) && service.split('.').all(name)).then_some(Self { whole, service })
    }
}

#[cfg(test)]
mod tests;
