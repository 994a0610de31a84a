//! `scoregate demo`: the whole path at work, in one command, and the lines to go on with.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use http::StatusCode;
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::app::Gateway;
use crate::auth::{self, IssuerSettings, MintRequest};
use crate::cli::{log, run};
use crate::control::config::{self, LogFormat, LogSettings, Source};
use crate::lifecycle;

use super::client::{Answer, Call, Client};
use super::container;
use super::iris;
use super::stage::{OPEN_HOST, Stage};

/// What happens after the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Stay {
    /// The command ends.
    Exit,
    /// The gateway stays up for the reader's own calls.
    UntilSignal,
}

/// Rows of the data that are scored: the first flower of each species.
const ROWS: [usize; 3] = [0, 50, 100];

const KEY_PATH: &str = "/api/v1/service/iris/score";
const TOKEN_PATH: &str = "/api/v1/service/iris-token/score";

/// Shows the gateway at work; the exit code says whether every call came out as it must.
pub(in crate::cli) fn run(stay: Stay) -> anyhow::Result<ExitCode> {
    log::start(&LogSettings { format: LogFormat::Auto, level: "warn".to_owned() })?;
    run::control_runtime()?.block_on(show(stay))
}

#[expect(clippy::print_stdout, reason = "the command's output")]
async fn show(stay: Stay) -> anyhow::Result<ExitCode> {
    let model = container::bind().await.context("the model's port")?;
    let stage = Stage::set(model.address())?;
    println!("model      iris classifier in an Azure ML container, http://{}", model.address());
    lifecycle::spawn("model", model.serve(std::future::pending()));

    let source = Source::path(&stage.config());
    let loaded =
        config::load(&source).map_err(|problems| anyhow!("the demo's configuration:\n{problems}"))?;
    let tokens = issuer_settings(&loaded.config)?;
    let gateway = Gateway::start(source, loaded).await?;
    let address = gateway.bound().listeners.first().context("no listener")?.1;
    println!("gateway    https://{address}, configuration {}", stage.config().display());
    let bouquet = Bouquet::pick()?;
    println!("flowers    {}, really {}\n", bouquet.request, bouquet.species.join(", "));

    let client = Client::new(stage.ca(), address)?;
    let all_well = make_calls(&client, &stage, &tokens, &bouquet).await?;
    let records_well = show_records(&stage).await?;
    if stay == Stay::UntilSignal {
        let token = mint(&tokens, SystemTime::now())?;
        print_curl_lines(&stage, address.port(), &token, &bouquet);
        tokio::signal::ctrl_c().await?;
    }
    let drained = gateway.drain().await;
    let verdict = all_well && records_well && drained.cut == 0;
    println!(
        "{}",
        if verdict { "every call came out as it must" } else { "NOT every call came out as it must" }
    );
    Ok(if verdict { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The flowers that every call asks about.
struct Bouquet {
    /// The request's body.
    request: String,
    /// What the botanist said they are.
    species: Vec<&'static str>,
}

impl Bouquet {
    fn pick() -> anyhow::Result<Self> {
        let flowers = iris::flowers()?;
        let picked = ROWS.map(|row| flowers[row]);
        let data = picked.map(|flower| flower.measurements);
        let species = picked.iter().map(|flower| flower.species.name()).collect();
        Ok(Self { request: serde_json::json!({ "data": data }).to_string(), species })
    }
}

/// One line of the demo: a call and what it must bring.
struct Scene<'a> {
    title: &'static str,
    call: Call<'a>,
    expected: Expected,
}

#[derive(Clone, Copy)]
enum Expected {
    /// The three species.
    Species,
    /// A refusal with this reason.
    Refusal(&'static str),
}

/// Makes every call and prints what came of it.
#[expect(clippy::print_stdout, reason = "the command's output")]
async fn make_calls(
    client: &Client,
    stage: &Stage,
    tokens: &IssuerSettings,
    bouquet: &Bouquet,
) -> anyhow::Result<bool> {
    let token = mint(tokens, SystemTime::now())?;
    let long_ago = SystemTime::now() - tokens.lifetime - Duration::from_secs(60);
    let expired = mint(tokens, long_ago)?;
    let key = stage.primary_key.as_str();
    let call = |host, path, bearer| Call { host, path, bearer, body: bouquet.request.as_str() };
    use Expected::{Refusal, Species};
    let scenes = [
        Scene { title: "AKS, right key", call: call("localhost", KEY_PATH, Some(key)), expected: Species },
        Scene {
            title: "AKS, wrong key",
            call: call("localhost", KEY_PATH, Some("not-the-key")),
            expected: Refusal("auth_invalid"),
        },
        Scene {
            title: "AKS, no key",
            call: call("localhost", KEY_PATH, None),
            expected: Refusal("auth_missing"),
        },
        Scene { title: "ACI, no key needed", call: call(OPEN_HOST, "/score", None), expected: Species },
        Scene {
            title: "token mode, token",
            call: call("localhost", TOKEN_PATH, Some(&token)),
            expected: Species,
        },
        Scene {
            title: "token mode, expired",
            call: call("localhost", TOKEN_PATH, Some(&expired)),
            expected: Refusal("auth_expired"),
        },
        Scene {
            title: "token mode, a key",
            call: call("localhost", TOKEN_PATH, Some(key)),
            expected: Refusal("auth_invalid"),
        },
    ];
    let mut all_well = true;
    for scene in scenes {
        let answer = client.send(&scene.call).await.with_context(|| scene.title)?;
        let well = is_as_expected(&answer, scene.expected, bouquet);
        all_well &= well;
        let sign = if well { "as it must" } else { "NOT AS IT MUST" };
        println!(
            "{:<20} {} {sign}\n  {}",
            scene.title,
            answer.status.as_u16(),
            String::from_utf8_lossy(&answer.body)
        );
    }
    Ok(all_well)
}

fn is_as_expected(answer: &Answer, expected: Expected, bouquet: &Bouquet) -> bool {
    match expected {
        Expected::Species => {
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            answer.status == StatusCode::OK && body["species"] == serde_json::json!(bouquet.species)
        }
        Expected::Refusal(reason) => {
            answer.status == StatusCode::UNAUTHORIZED
                && answer.headers.get("x-scoregate-reason").is_some_and(|value| value == reason)
                && answer.headers.contains_key(http::header::WWW_AUTHENTICATE)
        }
    }
}

/// Prints the records; well if there is one for each call, with the reasons in order.
#[expect(clippy::print_stdout, reason = "the command's output")]
async fn show_records(stage: &Stage) -> anyhow::Result<bool> {
    let reasons = ["ok", "auth_invalid", "auth_missing", "ok", "ok", "auth_expired", "auth_invalid"];
    let mut records = stage.records()?;
    for _ in 0..100 {
        if records.len() >= reasons.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        records = stage.records()?;
    }
    println!("\nrecords (one per call)");
    let mut written = Vec::new();
    for record in &records {
        println!("  {record}");
        let record: Value = serde_json::from_str(record)?;
        written.push(record["Reason"].as_str().unwrap_or_default().to_owned());
    }
    Ok(written == reasons)
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn print_curl_lines(stage: &Stage, port: u16, token: &str, bouquet: &Bouquet) {
    let ca = stage.ca().display();
    let post = format!("curl --cacert {ca} -H 'Content-Type: application/json' -d '{}'", bouquet.request);
    println!("\ngo on with");
    println!("  {post} -H 'Authorization: Bearer {}' https://localhost:{port}{KEY_PATH}", stage.primary_key);
    println!("  {post} --resolve {OPEN_HOST}:{port}:127.0.0.1 https://{OPEN_HOST}:{port}/score");
    println!("  {post} -H 'Authorization: Bearer {token}' https://localhost:{port}{TOKEN_PATH}");
    println!("Ctrl-C ends the demo and removes its files\n");
}

fn issuer_settings(config: &config::Config) -> anyhow::Result<Arc<IssuerSettings>> {
    config.tokens.clone().context("the demo's configuration has no token issuer")
}

fn mint(issuer: &IssuerSettings, now: SystemTime) -> anyhow::Result<String> {
    let IssuerSettings { issuer, signing_key, lifetime, .. } = issuer;
    let request =
        MintRequest { issuer, audience: "iris-token", subject: "demo-user", lifetime: *lifetime, now };
    Ok(auth::mint(signing_key, &request)?.token.expose_secret().to_owned())
}
