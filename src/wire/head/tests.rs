//! What the head reader takes, what it refuses, and that the writer's output reads back.

use http::{HeaderName, HeaderValue};

use super::*;

fn limits() -> HeadLimits {
    HeadLimits::default()
}

fn request(wire: impl AsRef<[u8]>) -> Result<Option<RequestHead>, HeadError> {
    parse_request(&mut BytesMut::from(wire.as_ref()), &limits())
}

/// A GET with these further lines, each ending with CR LF.
fn with_fields(fields: &str) -> Result<Option<RequestHead>, HeadError> {
    request(format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"))
}

fn with_target(target: &str) -> Result<Option<RequestHead>, HeadError> {
    request(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"))
}

fn with_host(host: &str) -> Result<Option<RequestHead>, HeadError> {
    request(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
}

fn response(wire: impl AsRef<[u8]>) -> Result<Option<ResponseHead>, HeadError> {
    parse_response(&mut BytesMut::from(wire.as_ref()), &limits(), &Method::POST)
}

fn assert_malformed<T: fmt::Debug>(result: &Result<Option<T>, HeadError>, what: &str) {
    assert!(matches!(result, Err(HeadError::Malformed(..))), "{what}: {result:?}");
}

#[test]
fn a_request_is_read_and_its_body_left() {
    let mut buf = BytesMut::from(
        &b"POST /score?a=1 HTTP/1.1\r\nHost: iris.example.org:8443\r\nContent-Type:application/json \r\n\
           X-A: 1\r\nx-a: 2\r\nempty:\r\nContent-Length: 4\r\nExpect: 100-Continue\r\n\r\nbodyGET /next"[..],
    );
    let length = buf.len();
    let head = parse_request(&mut buf, &limits()).unwrap().unwrap();
    assert_eq!(head.method, Method::POST);
    assert_eq!(head.target, "/score?a=1");
    assert_eq!(head.version, Version::HTTP_11);
    assert_eq!(head.framing, Framing::Length(4));
    assert!(head.keep_alive && head.expect_continue);
    assert_eq!(head.authority, None);
    assert_eq!(head.headers[header::HOST], "iris.example.org:8443");
    assert_eq!(head.headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(head.headers["empty"], "");
    let values: Vec<_> = head.headers.get_all("x-a").iter().collect();
    assert_eq!(values, ["1", "2"]);
    assert_eq!(head.headers.len(), 5);
    assert_eq!(buf, "bodyGET /next");
    assert_eq!(head.head_bytes, length - buf.len());
}

#[test]
fn every_prefix_asks_for_more_and_changes_nothing() {
    let wire = b"\r\nPOST /score HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\nExpect: x\r\n\r\n";
    for cut in 0..wire.len() {
        let mut buf = BytesMut::from(&wire[..cut]);
        assert!(parse_request(&mut buf, &limits()).unwrap().is_none(), "{cut}");
        assert_eq!(buf, wire[..cut]);
    }
    let head = request(wire).unwrap().unwrap();
    assert_eq!(head.framing, Framing::Chunked);
    assert_eq!(head.head_bytes, wire.len());

    let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
    for cut in 0..wire.len() {
        let mut buf = BytesMut::from(&wire[..cut]);
        let head = parse_response(&mut buf, &limits(), &Method::GET).unwrap();
        assert!(head.is_none(), "{cut}");
        assert_eq!(buf, wire[..cut]);
    }
}

#[test]
fn long_heads_are_read_whole_and_in_part() {
    let wire = format!("GET / HTTP/1.1\r\nHost: h\r\na: {}\r\n\r\n", "b".repeat(REPARSE_BYTES));
    assert!(request(&wire[..wire.len() - 1]).unwrap().is_none());
    assert_eq!(request(&wire).unwrap().unwrap().headers["a"].len(), REPARSE_BYTES);
}

#[test]
fn lines_must_be_exact() {
    let cases: [&[u8]; 24] = [
        b"GET / HTTP/1.1\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n\n",
        b"GET / HTTP/1.1\r\nHost: h\na: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h \na: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\na:\nb: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\n\n",
        b"GET / HTTP/1.0\n\r\n",
        b"GET / HTTP/1.0\r\n\n",
        b"\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\rGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b" GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /  HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /\tHTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.2\r\nHost: h\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: h\r\n\r\n",
        b"GET / http/1.1\r\nHost: h\r\n\r\n",
        b"GET /\r\nHost: h\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"G(T / HTTP/1.1\r\nHost: h\r\n\r\n",
    ];
    for wire in cases {
        assert_malformed(&request(wire), &wire.escape_ascii().to_string());
    }
    let long = "M".repeat(MAX_METHOD + 1);
    assert_malformed(&request(format!("{long} / HTTP/1.0\r\n\r\n")), "long method");
}

#[test]
fn fields_must_be_exact() {
    for fields in [
        "a: b\r\n c\r\n",
        "a: b\r\n\tc\r\n",
        " a: b\r\n",
        "a : b\r\n",
        "a\t: b\r\n",
        "a\r\n",
        ": b\r\n",
        "a: b\rc\r\n",
        "a: b\r\r\n",
        "a: b\0c\r\n",
        "a: b\x0bc\r\n",
        "a: b\x1b[1m\r\n",
        "a: b\x7f\r\n",
        "\u{ef}: b\r\n",
        "a\0: b\r\n",
        "a b: c\r\n",
        "\"a\": c\r\n",
    ] {
        assert_malformed(&with_fields(fields), fields);
    }
    let head = with_fields("a: \u{ef}\tb\r\n").unwrap().unwrap();
    assert_eq!(head.headers["a"].as_bytes(), "\u{ef}\tb".as_bytes());
}

#[test]
fn framing_must_be_plain() {
    for fields in [
        "Content-Length: +5\r\n",
        "Content-Length: -0\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5_0\r\n",
        "Content-Length: 1 0\r\n",
        "Content-Length:\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5,6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nCONTENT-LENGTH: 6\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 000000000000000000005\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: , chunked\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
    ] {
        assert_malformed(&with_fields(fields), fields);
    }
    assert_malformed(&request("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), "chunks in HTTP/1.0");
    let framing = |fields| with_fields(fields).unwrap().unwrap().framing;
    assert_eq!(framing(""), Framing::None);
    assert_eq!(framing("Content-Length: 0\r\n"), Framing::Length(0));
    assert_eq!(framing("Content-Length: 18446744073709551615\r\n"), Framing::Length(u64::MAX));
    assert_eq!(framing("transfer-ENCODING: \t chunked \r\n"), Framing::Chunked);
}

#[test]
fn the_host_must_be_one_and_plain() {
    for host in [
        "",
        "a, b",
        "a,b",
        "u@h",
        "u:p@h",
        "h/p",
        "h?x",
        "h#x",
        "a b",
        "h:",
        "h:99999",
        "h:+1",
        "h:8a",
        ":80",
        "[::1",
        "[::1]x",
        "[zz]",
        "[fe80::1%25lo]",
        "h\\x",
        "h%00",
        "\u{e9}.example",
    ] {
        assert_malformed(&with_host(host), host);
    }
    assert_malformed(&with_host(&"h".repeat(300)), "300 letters");
    assert_malformed(&with_fields("Host: h\r\n"), "two hosts");
    assert_malformed(&request("GET / HTTP/1.1\r\n\r\n"), "no host");
    assert_malformed(&request("GET / HTTP/1.0\r\nHost: a/b\r\n\r\n"), "a bad host in HTTP/1.0");
    for host in ["h", "Iris.Example.org", "a_b-c.x:65535", "127.0.0.1:80", "[::1]", "[2001:db8::1]:8443"] {
        let head = with_host(host).unwrap().unwrap();
        assert_eq!(head.headers[header::HOST], host);
    }
    let old = request("GET / HTTP/1.0\r\n\r\n").unwrap().unwrap();
    assert!(!old.keep_alive && old.headers.is_empty());
}

#[test]
fn targets_are_split_and_checked() {
    for target in [
        "*",
        "score",
        "h:80",
        "/a#b",
        "#",
        "/\u{e9}",
        "/a\0b",
        "/a\x7f",
        "http:/h/",
        "http://",
        "http:///a",
        "http://u@h/",
        "http://h:99999/",
        "ftp://h/",
        "https://a,b/",
        "://h/",
    ] {
        assert_malformed(&with_target(target), target);
    }
    for (target, authority, path) in [
        ("/", None, "/"),
        ("//evil.example/..", None, "//evil.example/.."),
        ("http://o.example:80/score?x=http://y/", Some("o.example:80"), "/score?x=http://y/"),
        ("HTTPS://o.example", Some("o.example"), "/"),
        ("http://o.example?a/b", Some("o.example"), "/?a/b"),
    ] {
        let head = with_target(target).unwrap().unwrap();
        assert_eq!(head.target, path);
        assert_eq!(head.authority.as_deref(), authority.map(str::as_bytes));
        assert_eq!(head.headers[header::HOST], authority.unwrap_or("h"));
        assert_eq!(head.headers.len(), 1);
    }
    let options = request("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").unwrap().unwrap();
    assert_eq!(options.target, "*");
    let connect = request("CONNECT a.b:443 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap().unwrap();
    assert_eq!(connect.target, "a.b:443");
    assert_malformed(&request("CONNECT / HTTP/1.1\r\nHost: h\r\n\r\n"), "CONNECT /");
}

#[test]
fn what_belongs_to_the_connection_stays_there() {
    let head = with_fields(
        "Connection: close, X-Forwarded-For\r\nCONNECTION:\tAuthorization ,,host, Content-Length, x request\r\n\
         X-Forwarded-For: 1.2.3.4\r\nauthorization: Bearer x\r\nContent-Length: 0\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\nTE: trailers\r\nTrailer: x\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: x\r\nExpect: 100-continue\r\nX-Kept: 1\r\n",
    )
    .unwrap()
    .unwrap();
    let names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(names, ["host", "x-kept"]);
    assert_eq!(head.framing, Framing::Length(0));
    assert!(!head.keep_alive);
}

#[test]
fn how_long_the_sender_keeps_the_connection_is_read_where_it_makes_sense() {
    let kept = |field: &str| {
        let mut wire = BytesMut::from(&*format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{field}\r\n"));
        let head = parse_response(&mut wire, &HeadLimits::default(), &Method::GET).unwrap().unwrap();
        assert!(head.headers.is_empty());
        head.kept_idle.map(|kept| kept.as_secs())
    };
    for (field, seconds) in [
        ("", None),
        ("Keep-Alive: timeout=5\r\n", Some(5)),
        ("keep-alive: max=100, Timeout = 20\r\n", Some(20)),
        ("Keep-Alive: timeout=\"7\"\r\n", Some(7)),
        ("Keep-Alive: timeout=0\r\n", Some(0)),
        ("Keep-Alive: timeout=-1\r\n", None),
        ("Keep-Alive: timeout=99999999999\r\n", None),
        ("Keep-Alive: 300\r\n", None),
        ("Keep-Alive: \r\n", None),
    ] {
        assert_eq!(kept(field), seconds, "{field}");
    }
}

#[test]
fn persistence_follows_version_and_options() {
    let keep_alive = |version: &str, connection: &str| {
        let wire = format!("GET / {version}\r\nHost: h\r\n{connection}\r\n");
        request(wire).unwrap().unwrap().keep_alive
    };
    assert!(keep_alive("HTTP/1.1", ""));
    assert!(!keep_alive("HTTP/1.1", "Connection: Close\r\n"));
    assert!(!keep_alive("HTTP/1.0", ""));
    assert!(keep_alive("HTTP/1.0", "Connection: Keep-Alive\r\n"));
    for options in ["close, keep-alive", "keep-alive, close"] {
        assert!(!keep_alive("HTTP/1.1", &format!("Connection: {options}\r\n")));
    }
}

#[test]
fn limits_hold_for_whole_and_partial_heads() {
    let limits = HeadLimits { bytes: 4096, fields: 3, target: 1024 };
    let parse = |wire: &str| parse_request(&mut BytesMut::from(wire), &limits).map(|head| head.is_some());
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(length - 1));
    assert_eq!(parse(&target(1024)), Ok(true));
    let too_long = Err(HeadError::TargetTooLong { limit: 1024 });
    assert_eq!(parse(&target(1025)), too_long);
    assert_eq!(parse(&target(1025)[..1040]), too_long);
    assert_eq!(parse(&target(100_000)), too_long);
    assert_eq!(parse(&target(100_000)[..90_000]), too_long);
    let field = |length: usize| format!("GET / HTTP/1.1\r\nHost: h\r\na: {}\r\n\r\n", "b".repeat(length));
    let overhead = field(0).len();
    assert_eq!(parse(&field(4096 - overhead)), Ok(true));
    let too_large = Err(HeadError::TooLarge { limit: 4096 });
    assert_eq!(parse(&field(4097 - overhead)), too_large);
    assert_eq!(parse(&field(100_000)[..50_000]), too_large);
    let many = |count: usize| format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(count - 1));
    assert_eq!(parse(&many(3)), Ok(true));
    assert_eq!(parse(&many(4)), Err(HeadError::TooManyFields { limit: 3 }));
    let mut answer = BytesMut::from(format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(5000)).as_str());
    assert_eq!(
        parse_response(&mut answer, &limits, &Method::GET).unwrap_err(),
        HeadError::TooLarge { limit: 4096 }
    );
}

#[test]
fn answers_are_framed_by_status_method_and_fields() {
    let read = |method: Method, wire: &str| {
        let mut buf = BytesMut::from(wire);
        let head = parse_response(&mut buf, &limits(), &method).unwrap().unwrap();
        (head.framing, head.keep_alive)
    };
    let post = |wire: &str| read(Method::POST, wire);
    assert_eq!(post("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"), (Framing::Length(3), true));
    assert_eq!(post("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n"), (Framing::Chunked, true));
    assert_eq!(post("HTTP/1.1 200 \r\n\r\n"), (Framing::UntilClose, false));
    assert_eq!(
        post("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\n"),
        (Framing::Length(3), false)
    );
    assert_eq!(post("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n"), (Framing::Length(3), false));
    assert_eq!(
        post("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\n"),
        (Framing::Length(3), true)
    );
    for status in ["100", "103", "204", "304"] {
        let wire = format!("HTTP/1.1 {status} x\r\nContent-Length: 3\r\n\r\n");
        assert_eq!(post(&wire), (Framing::None, true), "{status}");
    }
    let wire = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(read(Method::HEAD, wire), (Framing::None, true));
    let head =
        response("HTTP/1.1 502 Bad \u{e9}\r\nConnection: x-a\r\nX-A: 1\r\nX-B: 2\r\n\r\n").unwrap().unwrap();
    assert_eq!(head.status, StatusCode::BAD_GATEWAY);
    assert_eq!(head.headers.len(), 1);
}

#[test]
fn odd_answers_are_refused() {
    for wire in [
        "HTTP/1.1 99\r\n\r\n",
        "HTTP/1.1 099 x\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\n\r\n",
        "HTTP/1.1 200 OK\r\na: b\n\r\n",
        "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 204 x\r\nContent-Length: a\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        assert_malformed(&response(wire), wire);
    }
}

#[test]
fn what_is_written_is_read_and_framing_is_never_copied() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "h"),
        ("content-length", "999"),
        ("transfer-encoding", "gzip"),
        ("connection", "x"),
        ("upgrade", "h2c"),
        ("x-a", "1"),
        ("x-a", "2"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    for framing in [Framing::None, Framing::Length(7), Framing::Chunked] {
        let mut out = BytesMut::new();
        encode_request(&mut out, &Method::POST, b"/score?x", &headers, framing);
        let head = parse_request(&mut out, &limits()).unwrap().unwrap();
        assert_eq!((head.framing, &head.target[..]), (framing, &b"/score?x"[..]));
        assert_eq!(head.headers.len(), 3);
        assert!(head.keep_alive && out.is_empty());
    }
    let mut out = BytesMut::new();
    for (version, framing, connection, keep_alive) in [
        (Version::HTTP_11, Framing::Length(0), ConnectionHeader::KeepAlive, true),
        (Version::HTTP_11, Framing::Chunked, ConnectionHeader::Close, false),
        (Version::HTTP_11, Framing::UntilClose, ConnectionHeader::KeepAlive, false),
        (Version::HTTP_10, Framing::Length(7), ConnectionHeader::KeepAlive, true),
    ] {
        let answer = AnswerHead { version, status: StatusCode::OK, headers: &headers, framing, connection };
        encode_response(&mut out, &answer);
        let wire = String::from_utf8(out.to_vec()).unwrap();
        assert_eq!(wire.contains("connection: keep-alive"), version == Version::HTTP_10);
        let head = parse_response(&mut out, &limits(), &Method::POST).unwrap().unwrap();
        assert_eq!((head.framing, head.keep_alive), (framing, keep_alive), "{wire}");
        assert_eq!(head.status, StatusCode::OK);
    }
}

const UPGRADE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n";

#[test]
fn a_websocket_handshake_is_told_by_all_of_its_marks() {
    let get = |lines: &str| format!("GET /score HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
    let is = |wire: &str| request(wire).unwrap().unwrap();
    let head = is(&get(UPGRADE));
    assert!(head.websocket && head.keep_alive);
    assert_eq!(head.headers.len(), 1, "the fields themselves do not travel");
    for wire in [
        get(""),
        get("Upgrade: websocket\r\n"),
        get("Connection: Upgrade\r\n"),
        get("Connection: upgrades\r\nUpgrade: websocket\r\n"),
        get("Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        get("Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"),
        get("Connection: Upgrade\r\nUpgrade: websocket/13\r\n"),
        get("Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n"),
        get("Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n"),
        get(&format!("{UPGRADE}Content-Length: 1\r\n")),
        get(&format!("{UPGRADE}Transfer-Encoding: chunked\r\n")),
        get(UPGRADE).replace("GET", "POST"),
        get(UPGRADE).replace("HTTP/1.1", "HTTP/1.0"),
    ] {
        assert!(!is(&wire).websocket, "{wire}");
    }
    assert!(response(format!("HTTP/1.1 101 S\r\n{UPGRADE}\r\n")).unwrap().unwrap().websocket);
    assert!(!response("HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n").unwrap().unwrap().websocket);
}

#[test]
fn upgrade_fields_are_written_for_a_handshake_and_its_101_alone() {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("h"));
    headers.insert("upgrade", HeaderValue::from_static("h2c"));
    let mut out = BytesMut::new();
    encode_websocket_request(&mut out, b"/score", &headers);
    let head = parse_request(&mut out, &limits()).unwrap().unwrap();
    assert!(head.websocket && out.is_empty());
    let answer = AnswerHead {
        version: Version::HTTP_11,
        status: StatusCode::SWITCHING_PROTOCOLS,
        headers: &headers,
        framing: Framing::None,
        connection: ConnectionHeader::WebSocket,
    };
    encode_response(&mut out, &answer);
    let head = parse_response(&mut out, &limits(), &Method::GET).unwrap().unwrap();
    assert!(head.websocket && out.is_empty());
    encode_interim(&mut out, StatusCode::EARLY_HINTS, &headers);
    assert_eq!(out, "HTTP/1.1 103 Early Hints\r\nhost: h\r\n\r\n");
}
