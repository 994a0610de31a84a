//! TLS at the door: which certificate, which version, whose client certificate, which host, and what replaces what while
//! connections are open.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use rustls::{ClientConnection, HandshakeKind, ProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use scoregate::control::Outcome;
use scoregate::tls::{CertificateSource, development_certificates};
use tokio::net::TcpStream;

use crate::harness::{
    Connection, Gateway, H2, KEY, TlsClient, Upstream, config, eventually, peer_certificate, prepare,
    score_request, service,
};

const ONE_PAIR: &str = "{ cert: certs/server.pem, key: certs/server.key }";

fn failures(kind: &str) -> String {
    format!(r#"scoregate_tls_handshake_failures_total{{kind="{kind}",listener="public"}}"#)
}

fn leaf(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap()
}

/// A gateway with the harness's certificate (localhost, iris.test, *.wild.test) first and one for other.test second.
async fn with_two_certificates() -> (Gateway, Upstream, TlsClient) {
    let upstream = Upstream::echo().await;
    let pairs = format!("{ONE_PAIR}, {{ cert: other/server.pem, key: other/server.key }}");
    let config = config(&service("iris", upstream.address, "")).replace(ONE_PAIR, &pairs);
    let (dir, certificates) = prepare(&config);
    let other = development_certificates(&dir.path().join("other"), &["other.test"]).unwrap();
    let client = TlsClient::trusting(&[&certificates.ca, &other.ca]);
    (Gateway::start_in(dir, certificates).await, upstream, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_name_gets_its_certificate_and_all_else_the_first() {
    let (gateway, _upstream, client) = with_two_certificates().await;
    let first = leaf(&gateway.path("certs/server.pem"));
    let other = leaf(&gateway.path("other/server.pem"));
    assert_ne!(first, other);
    for (name, expected) in [
        ("iris.test", &first),
        ("a.wild.test", &first),
        ("other.test", &other),
        ("OTHER.test", &other),
        ("localhost", &first),
        // No SNI.
        ("127.0.0.1", &first),
    ] {
        let stream = client.connect(gateway.address, name).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(&peer_certificate(&stream), expected, "{name}");
    }
    // Unknown names get the first one, which these clients then do not accept.
    for name in ["unknown.test", "a.b.wild.test", "wild.test"] {
        client.connect(gateway.address, name).await.unwrap_err();
    }
    gateway.until_metric(&failures("our_certificate"), 3.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_and_both_protocols_score() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service("iris", upstream.address, ""))).await;
    for (version, expected) in [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let client = TlsClient::trusting(&[gateway.ca()]).version(version);
        for alpn in [None, Some("http/1.1")] {
            let client = alpn.map_or(client.clone(), |alpn| client.clone().alpn(alpn));
            let stream = client.connect(gateway.address, "localhost").await.unwrap();
            assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
            assert_eq!(stream.get_ref().1.alpn_protocol(), alpn.map(str::as_bytes));
            let mut connection = Connection::over(stream);
            connection.send(score_request("iris", Some(KEY), "h1")).await;
            let answer = connection.answer().await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "h1"));
        }
        let client = client.alpn("h2").alpn("http/1.1");
        let stream = client.connect(gateway.address, "localhost").await.unwrap();
        let mut h2 = H2::over(stream, "localhost").await;
        let answer = h2.score("iris", KEY, "h2").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "h2"));
    }
    let nothing_in_common = TlsClient::trusting(&[gateway.ca()]).alpn("spdy/3");
    nothing_in_common.connect(gateway.address, "localhost").await.unwrap_err();
    gateway.until_metric(&failures("nothing_in_common"), 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_floor_of_1_3_refuses_1_2() {
    let upstream = Upstream::echo().await;
    let pair = format!("[ {ONE_PAIR} ]");
    let config = config(&service("iris", upstream.address, ""));
    let gateway = Gateway::start(&config.replace(&pair, &format!("{pair}, min_version: \"1.3\""))).await;
    let client = TlsClient::trusting(&[gateway.ca()]);
    client.connect(gateway.address, "localhost").await.unwrap();
    client.version(&rustls::version::TLS12).connect(gateway.address, "localhost").await.unwrap_err();
    gateway.until_metric(&failures("nothing_in_common"), 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_client_certificates_are_required_only_ours_get_to_http() {
    let upstream = Upstream::echo().await;
    let pair = format!("[ {ONE_PAIR} ]");
    let config = config(&service("iris", upstream.address, ""))
        .replace(&pair, &format!("{pair}, client_ca: certs/ca.pem"));
    let gateway = Gateway::start(&config).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = development_certificates(elsewhere.path(), &[]).unwrap();
    let ours = gateway.certificates.client_certificate("robot").unwrap();
    let theirs = foreign.client_certificate("robot").unwrap();
    let client = TlsClient::trusting(&[gateway.ca()]);

    let mut connection =
        Connection::over(client.clone().showing(ours).connect(gateway.address, "localhost").await.unwrap());
    connection.send(score_request("iris", Some(KEY), "1")).await;
    assert_eq!(connection.answer().await.status, 200);

    for client in [client.clone(), client.showing(theirs)] {
        // In TLS 1.3 the client is done before the server has judged it.
        if let Ok(stream) = client.connect(gateway.address, "localhost").await {
            let mut connection = Connection::over(stream);
            connection.try_send(score_request("iris", Some(KEY), "1")).await;
            assert!(connection.try_answer().await.is_none(), "answered without a certificate");
        }
    }
    gateway.until_metric(&failures("client_certificate"), 2.0).await;
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_with_another_certificate_is_misdirected_and_one_with_the_same_is_served() {
    let (gateway, upstream, client) = with_two_certificates().await;
    let request = |host: &str| {
        score_request("iris", Some(KEY), "1").replace("Host: localhost", &format!("Host: {host}"))
    };
    // (SNI, Host, status); no SNI where the name is an address.
    let cases = [
        ("iris.test", "iris.test", 200),
        ("iris.test", "IRIS.test:8443", 200),
        ("iris.test", "a.wild.test", 200),
        ("iris.test", "unknown.test", 200),
        ("iris.test", "other.test", 421),
        ("other.test", "iris.test", 421),
        ("other.test", "unknown.test", 421),
        ("127.0.0.1", "other.test", 200),
    ];
    for (sni, host, status) in cases {
        let mut connection = Connection::over(client.connect(gateway.address, sni).await.unwrap());
        connection.send(request(host)).await;
        let answer = connection.answer().await;
        assert_eq!(answer.status, status, "h1: SNI {sni}, Host {host}: {}", answer.text());

        let stream = client.clone().alpn("h2").connect(gateway.address, sni).await.unwrap();
        let answer = H2::over(stream, host).await.score("iris", KEY, "1").await;
        assert_eq!(answer.status, status, "h2: SNI {sni}, authority {host}");
        if status == 421 {
            assert_eq!(answer.reason(), "bad_request");
        }
    }
    let served = cases.iter().filter(|(.., status)| *status == 200).count() * 2;
    assert_eq!(upstream.seen().len(), served, "a misdirected call reached the model");
    let records = gateway.records(2 * cases.len()).await;
    let misdirected = records.iter().filter(|record| record["StatusCode"] == 421);
    assert_eq!(misdirected.count(), 2 * cases.len() - served);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_h2_connection_serves_the_hosts_of_its_certificate_beside_misdirected_calls() {
    let (gateway, _upstream, client) = with_two_certificates().await;
    let stream = client.alpn("h2").connect(gateway.address, "iris.test").await.unwrap();
    let mut h2 = H2::over(stream, "iris.test").await;
    for (authority, status) in [("iris.test", 200), ("other.test", 421), ("a.wild.test", 200)] {
        let mut request = h2.score_request("iris", KEY, "1");
        *request.uri_mut() = format!("https://{authority}/api/v1/service/iris/score").parse().unwrap();
        assert_eq!(h2.call(request).await.status, status, "{authority}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_session_offers_no_early_data() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service("iris", upstream.address, ""))).await;
    let mut config = TlsClient::trusting(&[gateway.ca()]).config();
    config.enable_early_data = true;
    let config = Arc::new(config);
    let name = ServerName::try_from("localhost").unwrap();
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
        let tcp = TcpStream::connect(gateway.address).await.unwrap();
        let stream = connector.connect(name.clone(), tcp).await.unwrap();
        kinds.push(stream.get_ref().1.handshake_kind());
        // The ticket comes with the first answer at the latest.
        let mut connection = Connection::over(stream);
        connection.send(score_request("iris", Some(KEY), "1")).await;
        assert_eq!(connection.answer().await.status, 200);
    }
    assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]);
    let mut next = ClientConnection::new(Arc::clone(&config), name).unwrap();
    assert!(next.early_data().is_none(), "the ticket allows early data");
}

/// Issues a new pair for the same names by the same authority; gives its files.
fn renewed(gateway: &Gateway) -> CertificateSource {
    let dir = gateway.path("renewal");
    fs::create_dir_all(&dir).unwrap();
    for file in ["ca.pem", "ca.key"] {
        fs::copy(gateway.path("certs").join(file), dir.join(file)).unwrap();
    }
    let _ = fs::remove_file(dir.join("server.pem"));
    development_certificates(&dir, &["iris.test", "*.wild.test"]).unwrap().server
}

/// Open connections of both protocols that have to live through what a test does to the certificate.
struct Witnesses {
    h1: Connection,
    h2: H2,
}

impl Witnesses {
    async fn new(gateway: &Gateway) -> Self {
        let mut witnesses = Self { h1: gateway.connect().await, h2: gateway.h2().await };
        witnesses.check().await;
        witnesses
    }

    async fn check(&mut self) {
        self.h1.send(score_request("iris", Some(KEY), "1")).await;
        assert_eq!(self.h1.answer().await.status, 200);
        assert_eq!(self.h2.score("iris", KEY, "1").await.status, 200);
    }
}

async fn served(gateway: &Gateway) -> CertificateDer<'static> {
    let client = TlsClient::trusting(&[gateway.ca()]);
    peer_certificate(&client.connect(gateway.address, "localhost").await.unwrap())
}

/// Waits until new connections get `certificate`; every handshake until then has to succeed.
async fn until_served(gateway: &Gateway, certificate: &CertificateDer<'static>) {
    eventually("the new certificate", async || (served(gateway).await == *certificate).then_some(())).await;
}

/// Starts a gateway, swaps its pair by `swap` without telling it, and watches.
async fn swapped_by(arrange: impl FnOnce(&Path), swap: impl FnOnce(&Gateway, &CertificateSource)) {
    let upstream = Upstream::echo().await;
    let (dir, certificates) = prepare(&config(&service("iris", upstream.address, "")));
    arrange(dir.path());
    let gateway = Gateway::start_in(dir, certificates).await;
    let mut witnesses = Witnesses::new(&gateway).await;
    let old = served(&gateway).await;
    assert_eq!(old, leaf(&gateway.path("certs/server.pem")));

    let pair = renewed(&gateway);
    let new = leaf(&pair.cert);
    assert_ne!(old, new);
    swap(&gateway, &pair);
    until_served(&gateway, &new).await;
    witnesses.check().await;
    let status = gateway.status().await;
    assert!(status["error"].is_null(), "{status}");
    assert_eq!(gateway.metric("scoregate_config_last_reload_successful").await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_swapped_by_rename_serves_new_connections_and_open_ones_go_on() {
    swapped_by(
        |_| {},
        |gateway, pair| {
            fs::rename(&pair.cert, gateway.path("certs/server.pem")).unwrap();
            fs::rename(&pair.key, gateway.path("certs/server.key")).unwrap();
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_overwritten_in_place_serves_new_connections_and_open_ones_go_on() {
    swapped_by(
        |_| {},
        |gateway, pair| {
            fs::write(gateway.path("certs/server.key"), fs::read(&pair.key).unwrap()).unwrap();
            fs::write(gateway.path("certs/server.pem"), fs::read(&pair.cert).unwrap()).unwrap();
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_swapped_as_kubernetes_does_serves_new_connections_and_open_ones_go_on() {
    let files = ["server.pem", "server.key"];
    swapped_by(
        |dir| {
            let certs = dir.join("certs");
            fs::create_dir(certs.join("..v1")).unwrap();
            symlink("..v1", certs.join("..data")).unwrap();
            for file in files {
                fs::rename(certs.join(file), certs.join("..v1").join(file)).unwrap();
                symlink(PathBuf::from("..data").join(file), certs.join(file)).unwrap();
            }
        },
        |gateway, pair| {
            let certs = gateway.path("certs");
            fs::create_dir(certs.join("..v2")).unwrap();
            fs::rename(&pair.cert, certs.join("..v2/server.pem")).unwrap();
            fs::rename(&pair.key, certs.join("..v2/server.key")).unwrap();
            symlink("..v2", certs.join("..data_tmp")).unwrap();
            fs::rename(certs.join("..data_tmp"), certs.join("..data")).unwrap();
            fs::remove_dir_all(certs.join("..v1")).unwrap();
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_rotations_fail_no_handshake() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service("iris", upstream.address, ""))).await;
    let mut witnesses = Witnesses::new(&gateway).await;
    for _ in 0..20 {
        let pair = renewed(&gateway);
        let new = leaf(&pair.cert);
        fs::rename(&pair.cert, gateway.path("certs/server.pem")).unwrap();
        // Between the two renames the files on the disk do not match; handshakes must not notice.
        served(&gateway).await;
        fs::rename(&pair.key, gateway.path("certs/server.key")).unwrap();
        // The watch may have been quicker than this.
        assert!(!matches!(gateway.reload().await, Outcome::Refused(_)));
        assert_eq!(served(&gateway).await, new);
    }
    witnesses.check().await;
    for kind in ["our_certificate", "closed", "other", "timeout"] {
        assert_eq!(gateway.metric(&failures(kind)).await, 0.0, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_served_keeps_the_old_pair_and_is_told() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service("iris", upstream.address, ""))).await;
    let mut witnesses = Witnesses::new(&gateway).await;
    let old = served(&gateway).await;
    let (cert, key) = (gateway.path("certs/server.pem"), gateway.path("certs/server.key"));
    let (good_cert, good_key) = (fs::read(&cert).unwrap(), fs::read(&key).unwrap());
    let errors = "scoregate_certificate_reload_errors_total";
    let before = gateway.status().await;

    let other = renewed(&gateway);
    type Damage<'a> = (&'static str, Box<dyn Fn() + 'a>);
    let damages: [Damage<'_>; 4] = [
        ("server.key", Box::new(|| fs::write(&key, fs::read(&other.key).unwrap()).unwrap())),
        ("server.key", Box::new(|| fs::write(&key, "no key at all").unwrap())),
        ("server.pem", Box::new(|| fs::write(&cert, &good_cert[..good_cert.len() / 2]).unwrap())),
        ("server.pem", Box::new(|| fs::remove_file(&cert).unwrap())),
    ];
    for (file, damage) in &damages {
        let counted = gateway.metric(errors).await;
        damage();
        let Outcome::Refused(why) = gateway.reload().await else { panic!("{file} was taken") };
        assert!(why.contains(file), "{why}");
        let status = gateway.status().await;
        assert!(status["error"].as_str().unwrap().contains(file), "{status}");
        assert_eq!(status["runningHash"], before["runningHash"]);
        assert_eq!(status["generation"], before["generation"]);
        // The watch may have counted it too.
        assert!(gateway.metric(errors).await > counted);
        assert_eq!(gateway.metric("scoregate_config_last_reload_successful").await, 0.0);
        assert!(gateway.metric(r#"scoregate_config_reloads_total{outcome="refused"}"#).await > 0.0);
        assert_eq!(served(&gateway).await, old);
        witnesses.check().await;

        fs::write(&cert, &good_cert).unwrap();
        fs::write(&key, &good_key).unwrap();
        assert_eq!(gateway.reload().await, Outcome::Unchanged);
        assert!(gateway.status().await["error"].is_null());
        assert_eq!(gateway.metric("scoregate_config_last_reload_successful").await, 1.0);
    }
    assert_eq!(gateway.observe("/readyz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gauge_shows_when_each_served_certificate_ends() {
    let (gateway, _upstream, _client) = with_two_certificates().await;
    for (name, dir) in [("iris.test", "certs"), ("other.test", "other")] {
        let files = gateway.path(dir);
        let source = CertificateSource { cert: files.join("server.pem"), key: files.join("server.key") };
        let end = scoregate::tls::load(&source).unwrap().not_after.duration_since(UNIX_EPOCH).unwrap();
        let series = format!(
            r#"scoregate_certificate_not_after_timestamp_seconds{{listener="public",name="{name}"}}"#
        );
        assert_eq!(gateway.metric(&series).await, end.as_secs() as f64, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_does_not_get_on_is_closed_at_its_deadline_and_good_clients_are_served() {
    let upstream = Upstream::echo().await;
    let config = config(&service("iris", upstream.address, ""))
        .replace("name: public", "name: public\n    handshake_timeout: 2s");
    let gateway = Gateway::start(&config).await;
    let mut silent = Connection::plain(gateway.address).await;
    // The start of a ClientHello that announces 512 bytes.
    let mut half = Connection::plain(gateway.address).await;
    half.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
    assert_eq!(gateway.score("iris", Some(KEY), "1").await.status, 200);
    assert!(silent.rest().await.is_empty());
    assert!(half.rest().await.is_empty());
    gateway.until_metric(&failures("timeout"), 2.0).await;
    gateway.until_metric(r#"scoregate_connections_open{listener="public"}"#, 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_http_on_the_tls_port_is_closed_without_an_answer_and_counted() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service("iris", upstream.address, ""))).await;
    for bytes in [score_request("iris", Some(KEY), "1").into_bytes(), vec![b'A'; 100 * 1024]] {
        let mut connection = Connection::plain(gateway.address).await;
        connection.try_send(&bytes).await;
        let rest = connection.rest().await;
        assert!(!rest.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&rest));
    }
    gateway.until_metric(&failures("not_tls"), 2.0).await;
    assert!(upstream.seen().is_empty());
    assert_eq!(gateway.score("iris", Some(KEY), "1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plaintext_is_spoken_only_where_the_configuration_says_so() {
    let upstream = Upstream::echo().await;
    let config = config(&service("iris", upstream.address, ""))
        .replace("observe:", "  - name: local\n    address: 127.0.0.1:0\n    plaintext: true\nobserve:");
    let gateway = Gateway::start(&config).await;
    let local = gateway.listener("local");
    assert_ne!(local, gateway.address);
    let mut plain = Connection::plain(local).await;
    plain.send(score_request("iris", Some(KEY), "1")).await;
    assert_eq!(plain.answer().await.status, 200);
    assert_eq!(upstream.seen()[0].header("x-forwarded-proto"), "http");
    let record = &gateway.records(1).await[0];
    assert!(record["RequestUrl"].as_str().unwrap().starts_with("http://"), "{record}");

    let tls = TlsClient::trusting(&[gateway.ca()]);
    tls.connect(local, "localhost").await.unwrap_err();
    let mut tls = gateway.connect().await;
    tls.send(score_request("iris", Some(KEY), "1")).await;
    assert_eq!(tls.answer().await.status, 200);
    assert_eq!(upstream.seen()[1].header("x-forwarded-proto"), "https");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_cap_a_connection_waits_for_a_place() {
    let upstream = Upstream::echo().await;
    let config = config(&service("iris", upstream.address, ""))
        .replace("name: public", "name: public\n    max_connections: 2");
    let gateway = Gateway::start(&config).await;
    let mut first = gateway.connect().await;
    let mut second = gateway.connect().await;
    let (address, ca) = (gateway.address, gateway.ca().to_owned());
    let third = tokio::spawn(async move { Connection::tls(address, "localhost", &ca).await });
    for _ in 0..20 {
        for connection in [&mut first, &mut second] {
            connection.send(score_request("iris", Some(KEY), "1")).await;
            assert_eq!(connection.answer().await.status, 200);
        }
    }
    assert!(!third.is_finished(), "three connections under a cap of two");
    let open = r#"scoregate_connections_open{listener="public"}"#;
    assert_eq!(gateway.metric(open).await, 2.0);
    drop(first);
    let mut third = third.await.unwrap();
    third.send(score_request("iris", Some(KEY), "1")).await;
    assert_eq!(third.answer().await.status, 200);
    assert_eq!(gateway.metric(open).await, 2.0);
}
