//! throwaway
#![allow(missing_docs, clippy::all)]
use super::*;
use serde_json::Value as V;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use crate::auth::*;
use crate::catalog::*;
use crate::limit::*;
use crate::upstream::*;
#[derive(Clone)]
pub struct Source(PathBuf);
pub struct Loaded { pub config: Config, pub warnings: Vec<String>, pub hash: String }
impl Source { pub fn new(p: &Path) -> Self { Self(p.to_owned()) } }
fn d(v: &V, default: u64) -> Duration { v.as_str().map_or(Duration::from_millis(default), |s| parse_duration(s).unwrap()) }
pub fn parse_duration(s: &str) -> Result<Duration, String> {
    let i = s.find(|c: char| !c.is_ascii_digit()).ok_or("unit")?;
    let n: u64 = s[..i].parse().map_err(|_| "n")?;
    Ok(match &s[i..] { "ms" => Duration::from_millis(n), "s" => Duration::from_secs(n), "m" => Duration::from_secs(n*60), "h" => Duration::from_secs(n*3600), _ => return Err("unit".into()) })
}
pub fn load(s: &Source) -> Result<Loaded, String> {
    let text = std::fs::read_to_string(&s.0).map_err(|e| e.to_string())?;
    let v: V = serde_saphyr::from_str(&text).map_err(|e| e.to_string())?;
    let dir = s.0.parent().unwrap().to_owned();
    let p = |v: &V| dir.join(v.as_str().unwrap());
    let mut files = vec![s.0.clone()];
    let mut content = text.clone();
    let mut secret = |v: &V| -> secrecy::SecretString { let f = dir.join(v["file"].as_str().unwrap()); files.push(f.clone()); let t = std::fs::read_to_string(f).unwrap(); content.push_str(&t); t.trim_end().to_owned().into() };
    let tokens = v.get("tokens").map(|t| Arc::new(TokenSettings { issuer: t["issuer"].as_str().unwrap().into(), signing_key: secret(&t["signing_key"]), lifetime: d(&t["lifetime"], 3600_000), leeway: d(&t["leeway"], 60_000) }));
    let oidc = |s: &V| { let o = &s["oidc"]; AuthSettings::Oidc(OidcSettings { issuer: o["issuer"].as_str().unwrap().into(), audience: o["audience"].as_str().unwrap_or(s["name"].as_str().unwrap()).into(), jwks: JwksSource::File(p(&o["jwks"]["file"])), leeway: d(&o["leeway"], 60_000) }) };
    let services = v["services"].as_array().unwrap().iter().map(|s| {
        let compute_type = match s["compute_type"].as_str().unwrap() { "ACI" => ComputeType::Aci, "AKS" => ComputeType::Aks, _ => ComputeType::Managed };
        let mode = s["auth"].as_str().unwrap_or(compute_type.default_auth().as_str()).to_owned();
        let auth = match mode.as_str() { "none" => AuthSettings::None, "key" => AuthSettings::Key(KeySettings { primary: secret(&s["keys"]["primary"]), secondary: s["keys"].get("secondary").map(&mut secret) }), "token" => AuthSettings::Token(tokens.clone().unwrap()), "oidc" => oidc(s), _ => panic!() };
        let l = &s["limits"];
        ServiceSettings {
            name: ServiceName::parse(s["name"].as_str().unwrap()).unwrap(), compute_type, auth,
            hosts: s["hosts"].as_array().map(|h| h.iter().map(|h| h.as_str().unwrap().into()).collect()).unwrap_or_default(),
            limits: Limits { body_bytes: l["body_bytes"].as_u64().unwrap_or(100 << 20), header_bytes: l["header_bytes"].as_u64().unwrap_or(65536) as usize, request_body: d(&l["request_body_timeout"], 30000), response_write: d(&l["response_write_timeout"], 30000),
              upstream: Deadlines { connect: d(&l["connect_timeout"], 5000), first_byte: d(&l["scoring_timeout"], 60000), idle: d(&l["idle_timeout"], 60000) },
              admission: AdmissionSettings { per_replica: l["concurrent_requests_per_replica"].as_u64().map(|n| n as u32), queue_wait: d(&l["queue_wait"], 500), queue_length: l["queue_length"].as_u64().unwrap_or(1000) as u32 } },
            status_mapping: if s["status_mapping"] == "passthrough" { StatusMapping::Passthrough } else { StatusMapping::ComputeType },
            cors: s.get("cors").map(|c| CorsSettings { origins: c["origins"].as_array().unwrap().iter().map(|o| o.as_str().unwrap().parse().unwrap()).collect(), headers: c["headers"].as_array().map(|o| o.iter().map(|o| o.as_str().unwrap().parse().unwrap()).collect()).unwrap_or_default(), max_age: d(&c["max_age"], 600_000) }),
            deployments: s["deployments"].as_array().unwrap().iter().map(|dep| DeploymentSettings {
                name: ServiceName::parse(dep["name"].as_str().unwrap()).unwrap(), traffic: dep["traffic"].as_u64().unwrap_or(100) as u8,
                replicas: dep["replicas"].as_array().unwrap().iter().map(|r| { let u: url::Url = r.as_str().unwrap().parse().unwrap(); ReplicaSettings { origin: Origin { host: u.host_str().unwrap().into(), port: u.port_or_known_default().unwrap() }, protocol: if dep["protocol"] == "h2" { ReplicaProtocol::H2 } else { ReplicaProtocol::H1 }, tls: None } }).collect(),
                paths: EndpointPaths { score: "/score".into(), swagger: "/swagger.json".into(), health: "/".into() } }).collect(),
        } }).collect();
    let listeners = v["listeners"].as_array().unwrap().iter().map(|l| crate::listener::ListenerSettings {
        name: l["name"].as_str().unwrap().into(), address: l["address"].as_str().unwrap().parse().unwrap(),
        tls: l.get("tls").map(|t| crate::tls::ServerTlsSettings { certificates: t["certificates"].as_array().unwrap().iter().map(|c| crate::tls::CertificateSource { cert: p(&c["cert"]), key: p(&c["key"]) }).collect(), client_ca: t.get("client_ca").filter(|c| c.is_string()).map(p), min_version: if t["min_version"] == "1.3" { crate::tls::TlsVersionFloor::V1_3 } else { Default::default() } }),
        handshake_timeout: d(&l["handshake_timeout"], 10000), header_timeout: d(&l["header_timeout"], 30000), idle_timeout: d(&l["idle_timeout"], 75000), max_connections: l["max_connections"].as_u64().unwrap_or(10000) as u32,
        proxy_protocol_from: l["proxy_protocol"]["from"].as_array().map(|n| n.iter().map(|n| n.as_str().unwrap().parse().unwrap()).collect()).unwrap_or_default() }).collect();
    let tls_files: Vec<PathBuf> = v["listeners"].as_array().unwrap().iter().flat_map(|l| l["tls"]["certificates"].as_array().into_iter().flatten().flat_map(|c| [p(&c["cert"]), p(&c["key"])]).chain(l["tls"]["client_ca"].as_str().map(|c| dir.join(c)))).collect();
    let tls_files = tls_files.into_iter().chain(v["services"].as_array().unwrap().iter().filter_map(|s| s["oidc"]["jwks"]["file"].as_str().map(|f| dir.join(f))));
    for file in tls_files { content.push_str(&std::fs::read_to_string(&file).unwrap_or_default()); files.push(file); }
    let config = Config { workspace: Workspace { subscription: "".into(), resource_group: "".into(), name: "".into(), location: "".into() }, public_url: None,
        runtime: RuntimeSettings { workers: v["runtime"]["workers"].as_u64().unwrap_or(2) as usize }, listeners,
        observe: Some(ObserveSettings { address: v["observe"]["address"].as_str().unwrap_or("127.0.0.1:9090").parse().unwrap() }), tokens, services,
        telemetry: crate::telemetry::TelemetrySettings { privacy: if v["telemetry"]["privacy"] == "high" { crate::telemetry::Privacy::High } else { crate::telemetry::Privacy::Standard }, record_file: v["telemetry"]["records"]["file"].get("path").map(|x| dir.join(x.as_str().unwrap())), record_stdout: false },
        drain: DrainSettings { delay: d(&v["drain"]["delay"], 5000), timeout: d(&v["drain"]["timeout"], 25000) }, log: LogSettings { format: LogFormat::Auto, level: v["log"]["level"].as_str().unwrap_or("info").into() }, files };
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content.as_bytes());
    let hash = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    Ok(Loaded { config, warnings: vec![], hash })
}
pub fn needs_restart(_: &Config, _: &Config) -> Vec<String> { vec![] }
