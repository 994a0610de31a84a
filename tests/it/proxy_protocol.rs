//! The PROXY header at the door: believed from listed peers, who must send one, and from nobody else.

use crate::harness::{Connection, Gateway, KEY, TlsClient, Upstream, config, score_request, service, soon};

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
/// The same in version 2.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x67\x01\xbb";
const REFUSED: &str = r#"scoregate_connections_refused_total{listener="public",reason="proxy_header"}"#;

/// A gateway whose TLS listener, and a plaintext one, expect the header from `from`.
async fn gateway(from: &str, upstream: &Upstream) -> Gateway {
    let listed = format!("proxy_protocol: {{ from: [ {from} ] }}\n    handshake_timeout: 3s");
    let config = config(&service("iris", upstream.address, ""))
        .replace("name: public", &format!("name: public\n    {listed}"))
        .replace(
            "observe:",
            &format!(
                "  - name: local\n    address: 127.0.0.1:0\n    plaintext: true\n    {listed}\nobserve:"
            ),
        );
    Gateway::start(&config).await
}

/// A TLS connection that begins with `header`.
async fn connect(gateway: &Gateway, header: &[u8]) -> std::io::Result<Connection> {
    let mut tcp = tokio::net::TcpStream::connect(gateway.address).await?;
    tokio::io::AsyncWriteExt::write_all(&mut tcp, header).await?;
    let client = TlsClient::trusting(&[gateway.ca()]);
    Ok(Connection::over(client.handshake(tcp, "localhost").await?))
}

/// A call whose client claims addresses of its own making.
fn spoofing() -> String {
    score_request("iris", Some(KEY), "1").replace(
        "Host:",
        "X-Forwarded-For: 203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\nTrue-Client-IP: 203.0.113.9\r\n\
         Forwarded: for=203.0.113.9\r\nHost:",
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_header_of_a_listed_peer_names_the_client_in_record_and_upstream() {
    let upstream = Upstream::echo().await;
    let gateway = gateway("127.0.0.0/8", &upstream).await;
    // UNKNOWN and LOCAL name nobody: the peer itself is meant.
    let unknown: &[u8] = b"PROXY UNKNOWN\r\n";
    let local: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    let cases = [(V1, "192.0.2.7"), (V2, "192.0.2.7"), (unknown, "127.0.0.1"), (local, "127.0.0.1")];
    for (number, (header, client)) in cases.into_iter().enumerate() {
        let mut connection = connect(&gateway, header).await.unwrap();
        for _ in 0..2 {
            connection.send(spoofing()).await;
            assert_eq!(connection.answer().await.status, 200);
        }
        let records = gateway.records(2 * (number + 1)).await;
        let seen = upstream.seen();
        for call in [2 * number, 2 * number + 1] {
            assert_eq!(records[call]["ClientAddress"], client);
            assert_eq!(seen[call].header("x-forwarded-for"), client);
            assert!(!seen[call].head.contains("203.0.113.9"), "{}", seen[call].head);
        }
    }

    let mut plain = Connection::plain(gateway.listener("local")).await;
    plain.send([V1, spoofing().as_bytes()].concat()).await;
    assert_eq!(plain.answer().await.status, 200);
    assert_eq!(gateway.records(9).await[8]["ClientAddress"], "192.0.2.7");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_in_pieces_is_put_together() {
    let upstream = Upstream::echo().await;
    let gateway = gateway("127.0.0.0/8", &upstream).await;
    for header in [V1, V2] {
        let mut tcp = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        for byte in header {
            tokio::io::AsyncWriteExt::write_all(&mut tcp, &[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let client = TlsClient::trusting(&[gateway.ca()]);
        let mut connection = Connection::over(client.handshake(tcp, "localhost").await.unwrap());
        connection.send(score_request("iris", Some(KEY), "1")).await;
        assert_eq!(connection.answer().await.status, 200);
    }
    assert!(gateway.records(2).await.iter().all(|record| record["ClientAddress"] == "192.0.2.7"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listed_peer_without_a_good_header_is_closed_and_counted() {
    let upstream = Upstream::echo().await;
    let gateway = gateway("127.0.0.0/8", &upstream).await;
    let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 4096]].concat();
    let cases: [&[u8]; 5] = [
        b"",
        b"PROXY TCP4 192.0.2.300 198.51.100.1 4711 443\r\n",
        b"PROXY TCP5 192.0.2.7 198.51.100.1 4711 443\r\n",
        // Version 3 of the binary form.
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x67\x01\xbb",
        &endless,
    ];
    for header in cases {
        assert!(connect(&gateway, header).await.is_err(), "{:?}", String::from_utf8_lossy(header));
    }
    gateway.until_metric(REFUSED, cases.len() as f64).await;
    // Begun and never ended: the deadline closes it.
    let mut unended = Connection::plain(gateway.address).await;
    unended.send(b"PROXY TCP4 192.0.2.7").await;
    assert!(soon("the close", unended.rest()).await.is_empty());
    gateway.until_metric(REFUSED, cases.len() as f64 + 1.0).await;
    assert!(upstream.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_of_an_unlisted_peer_is_no_header() {
    let upstream = Upstream::echo().await;
    let gateway = gateway("10.0.0.0/8", &upstream).await;
    for header in [V1, V2] {
        assert!(connect(&gateway, header).await.is_err(), "a stranger's header was taken");
    }
    let not_tls = r#"scoregate_tls_handshake_failures_total{kind="not_tls",listener="public"}"#;
    gateway.until_metric(not_tls, 2.0).await;

    for header in [V1, V2] {
        let mut plain = Connection::plain(gateway.listener("local")).await;
        plain.try_send([header, spoofing().as_bytes()].concat()).await;
        if let Some(answer) = plain.try_answer().await {
            assert_eq!(answer.status, 400);
        }
        assert!(plain.rest().await.is_empty(), "what followed the header was answered");
    }
    assert!(upstream.seen().is_empty());

    let mut connection = connect(&gateway, b"").await.unwrap();
    connection.send(spoofing()).await;
    assert_eq!(connection.answer().await.status, 200);
    let seen = &upstream.seen()[0];
    assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
    assert!(!seen.head.contains("203.0.113.9"), "{}", seen.head);
    // The refused heads never became calls.
    let records = gateway.records(1).await;
    let served = records.iter().find(|record| record["StatusCode"] == 200).unwrap();
    assert_eq!(served["ClientAddress"], "127.0.0.1");
    assert_eq!(gateway.metric(REFUSED).await, 0.0);
}
