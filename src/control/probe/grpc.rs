//! The one method of the gRPC health checking protocol (`grpc.health.v1`) that probes call, as bytes.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;

/// Where it is called.
pub(super) const PATH: &str = "/grpc.health.v1.Health/Check";

/// Field 1 (`service`) of `HealthCheckRequest`, of wire type 2 (length-delimited).
const SERVICE: u8 = 1 << 3 | 2;
/// Field 1 (`status`) of `HealthCheckResponse`, of wire type 0 (varint).
const STATUS: u8 = 1 << 3;
/// `HealthCheckResponse.ServingStatus.SERVING`
const SERVING: u8 = 1;

/// A length-prefixed, uncompressed `HealthCheckRequest`.
pub(super) fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(SERVICE);
        put_varint(&mut message, service.len());
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    // A service's name is far below 4 GiB: it was read from a bounded file.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.unsplit(message);
    framed.freeze()
}

fn put_varint(buffer: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        buffer.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    buffer.put_u8(value as u8);
}

/// Whether a length-prefixed `HealthCheckResponse` says SERVING.
///
/// # Errors
/// What it says.
pub(super) fn is_serving(message: &[u8]) -> Result<(), String> {
    let body = match message {
        [0, a, b, c, d, body @ ..] if u32::from_be_bytes([*a, *b, *c, *d]) as usize == body.len() => body,
        _ => return Err("its answer is no single uncompressed message".to_owned()),
    };
    match body {
        [STATUS, SERVING] => Ok(()),
        // The default of proto3 is not sent: UNKNOWN.
        [] | [STATUS, 0] => Err("UNKNOWN".to_owned()),
        [STATUS, 2] => Err("NOT_SERVING".to_owned()),
        [STATUS, 3] => Err("SERVICE_UNKNOWN".to_owned()),
        _ => Err("its answer is no HealthCheckResponse".to_owned()),
    }
}

/// Whether the call itself went well.
///
/// # Errors
/// Its status.
pub(super) fn check_status(fields: &HeaderMap) -> Result<(), String> {
    match fields.get("grpc-status").map(http::HeaderValue::as_bytes) {
        Some(b"0") => Ok(()),
        Some(status) => Err(format!("grpc-status {}", String::from_utf8_lossy(status))),
        None => Err("its answer has no grpc-status".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_names_the_service() {
        assert_eq!(question(""), [0, 0, 0, 0, 0].as_slice());
        assert_eq!(question("iris"), b"\0\0\0\0\x06\x0a\x04iris".as_slice());
        let long = question(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn serving_is_the_only_good_answer() {
        assert_eq!(is_serving(&[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        for bad in [
            &[][..],
            &[0, 0, 0, 0, 0],
            &[0, 0, 0, 0, 2, 8, 0],
            &[0, 0, 0, 0, 2, 8, 2],
            &[0, 0, 0, 0, 2, 8, 3],
            &[0, 0, 0, 0, 3, 8, 1],
            &[1, 0, 0, 0, 2, 8, 1],
            &[0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 2, 8, 1],
            &[0, 0, 0, 0, 2, 16, 1],
        ] {
            assert!(is_serving(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_call_that_failed_is_told_by_its_status() {
        let with = |status: Option<&'static str>| {
            let mut fields = HeaderMap::new();
            fields.extend(status.map(|status| {
                (http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static(status))
            }));
            check_status(&fields)
        };
        assert_eq!(with(Some("0")), Ok(()));
        assert_eq!(with(Some("12")), Err("grpc-status 12".to_owned()));
        assert!(with(None).is_err());
    }
}
