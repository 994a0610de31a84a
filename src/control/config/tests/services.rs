//! What is wrong with a service: its auth mode, secrets, names, shares, replicas, paths and cross-origin rules.

use super::*;

#[test]
fn a_service_has_one_auth_mode_with_what_it_needs() {
    let blue = "deployments: [{name: blue, replicas: ['http://h']}]";
    let service = |text: &str| format!("{{name: iris, compute_type: {text}, {blue}}}");
    check_services(&[
        (
            &service("AKS"),
            &[],
            &[
                "c.yaml:4:3: services[0].keys: is missing, but auth is key, the default of AKS; add keys with a primary, or another auth",
            ],
        ),
        (
            &service("ACI, auth: token"),
            &[],
            &[
                "c.yaml:4:41: services[0].auth: token authentication is not available on ACI; use key, none, or another compute type",
            ],
        ),
        (
            &service("AKS, auth: token"),
            &[],
            &[
                "c.yaml:4:41: services[0].auth: needs the gateway's own token issuer; add tokens: {issuer, signing_key} at the top",
            ],
        ),
        (
            &service("ACI, keys: {primary: {env: K}}"),
            &[("K", PRIMARY)],
            &[
                "c.yaml:4:41: services[0].keys: a service has one auth mode, and this one's is none, the default of ACI; remove keys, or write auth: key",
            ],
        ),
        (
            &service("Managed, auth: key, keys: {primary: {env: K}}, oidc: {issuer: i}"),
            &[("K", PRIMARY)],
            &[
                "c.yaml:4:83: services[0].oidc: a service has one auth mode, and this one's is key; remove oidc, or write auth: oidc",
            ],
        ),
        (
            &service("Managed, auth: none"),
            &[],
            &[
                "c.yaml:4:45: services[0].auth: a Managed service is never open; use key, token or oidc, or another compute type",
            ],
        ),
        (
            &service(
                "Managed, auth: oidc, oidc: {issuer: ' ', jwks: {url: 'http://idp.example/keys', file: x}, leeway: 11m}",
            ),
            &[],
            &[
                "c.yaml:4:66: services[0].oidc.issuer: is empty; write a value",
                "c.yaml:4:77: services[0].oidc.jwks: has both 'file' and 'url'; keep one of them",
                "c.yaml:4:128: services[0].oidc.leeway: 11m is out of range; allowed are 0s to 10m",
            ],
        ),
        (
            &service(
                "Managed, auth: oidc, oidc: {issuer: i, jwks: {url: 'http://idp.example/keys', ca: ca.pem}}",
            ),
            &[],
            &[
                "c.yaml:4:112: services[0].oidc.jwks.ca: /nowhere/ca.pem cannot be read (No such file or directory (os error 2)); check the path",
            ],
        ),
        (
            &service("Managed, auth: oidc, oidc: {issuer: i, jwks: {url: 'http://idp.example/keys'}}"),
            &[],
            &[
                "c.yaml:4:81: services[0].oidc.jwks.url: is fetched without encryption, so that anybody on the way can put in keys; write https://",
            ],
        ),
    ]);
}

#[test]
fn secrets_are_references_to_something_usable() {
    let service = |keys: &str| {
        format!(
            "{{name: iris, compute_type: AKS, deployments: [{{name: blue, replicas: ['http://h']}}], keys: {keys}}}"
        )
    };
    let inline = service("{primary: hunter2, secondary: 12345}");
    check_services(&[
        (
            &inline,
            &[],
            &[
                "c.yaml:4:104: services[0].keys.primary: expected a reference, {file: PATH} or {env: NAME}: secrets are never written into the configuration, found text",
                "c.yaml:4:124: services[0].keys.secondary: expected a reference, {file: PATH} or {env: NAME}: secrets are never written into the configuration, found a number",
            ],
        ),
        (
            &service("{primary: {file: k}, secondary: {env: K}}"),
            &[],
            &[
                "c.yaml:4:111: services[0].keys.primary.file: secret file /nowhere/k cannot be read (No such file or directory (os error 2)); check the path and that this process may read it",
                "c.yaml:4:132: services[0].keys.secondary.env: this environment variable is not set; set it or correct the name",
            ],
        ),
        (
            &service("{primary: {}, secondary: {file: k, env: K}}"),
            &[],
            &[
                "c.yaml:4:104: services[0].keys.primary: names no secret; write {file: PATH} or {env: NAME}",
                "c.yaml:4:119: services[0].keys.secondary: has both 'file' and 'env'; keep one of them",
            ],
        ),
        (
            &service("{primary: {env: A}, secondary: {env: B}}"),
            &[("A", "\n"), ("B", "a b")],
            &[
                "c.yaml:4:110: services[0].keys.primary.env: the secret is empty; write one into it",
                "c.yaml:4:131: services[0].keys.secondary.env: the key holds bytes that a header cannot carry; use letters, digits and signs of ASCII without spaces",
            ],
        ),
        (
            &service("{primary: {env: A}, secondary: {env: B}}"),
            &[("A", "short"), ("B", "short\n")],
            &[
                "c.yaml:4:110: warning: services[0].keys.primary.env: the key has fewer than 16 characters and can be guessed; use a random one of 32 or more",
                "c.yaml:4:125: services[0].keys.secondary: is the same key as primary; give each its own, so that one can be changed without a gap",
                "c.yaml:4:131: warning: services[0].keys.secondary.env: the key has fewer than 16 characters and can be guessed; use a random one of 32 or more",
            ],
        ),
        (
            &service("{secondary: {env: A}}"),
            &[("A", PRIMARY)],
            &["c.yaml:4:94: services[0].keys.primary: is missing; add it"],
        ),
    ]);
}

#[test]
fn names_and_hosts_are_there_once() {
    check(&[(
        "services:\n\
         - {name: iris, compute_type: ACI, hosts: [a.example, A.example], deployments: [{name: blue, replicas: ['http://h']}, {name: blue, replicas: ['http://h'], default: true}]}\n\
         - {name: iris, compute_type: ACI, hosts: ['a.example', 'b.example:80'], deployments: []}\n\
         - {compute_type: acl, hosts: b.example, deployments: [{name: blue, replicas: []}]}\n",
        &[],
        &[
            "c.yaml:4:54: services[0].hosts[1]: 'A.example' is not lower case; write a.example",
            "c.yaml:4:125: services[0].deployments[1].name: 'blue' is at c.yaml:4:87 (services[0].deployments[0].name) already; each may be there once",
            "c.yaml:5:3: services[1].deployments: lists no deployment; add one with name and replicas",
            "c.yaml:5:10: services[1].name: 'iris' is at c.yaml:4:10 (services[0].name) already; each may be there once",
            "c.yaml:5:43: services[1].hosts[0]: 'a.example' is at c.yaml:4:43 (services[0].hosts[0]) already; each may be there once",
            "c.yaml:5:56: services[1].hosts[1]: 'b.example:80' has a port or brackets; write the name or address alone",
            "c.yaml:6:3: services[2].name: is missing; add it",
            "c.yaml:6:18: services[2].compute_type: 'acl' is not one of ACI, AKS, Managed; did you mean 'ACI'?",
            "c.yaml:6:30: services[2].hosts: expected a list, found text",
            "c.yaml:6:55: services[2].deployments[0].replicas: lists no replica; add one such as http://127.0.0.1:5001",
        ],
    )]);
}

#[test]
fn traffic_adds_up_or_has_a_default() {
    let service = |blue: &str, green: &str| {
        format!(
            "{{name: iris, compute_type: ACI, deployments: [{{name: blue, replicas: ['http://h']{blue}}}, {{name: green, replicas: ['http://h']{green}}}]}}"
        )
    };
    check_services(&[
        (&service(", traffic: 90", ", traffic: 10"), &[], &[]),
        (&service(", default: true", ", traffic: 10"), &[], &[]),
        (
            &service(", traffic: 90", ", traffic: 20"),
            &[],
            &["c.yaml:4:3: services[0].deployments: the traffic adds up to 110 percent; lower it to 100"],
        ),
        (
            &service("", ""),
            &[],
            &[
                "c.yaml:4:3: services[0].deployments: no deployment has traffic; give it to them in percent, or mark one with default: true",
            ],
        ),
        (
            &service(", traffic: 90", ", traffic: 5"),
            &[],
            &[
                "c.yaml:4:3: warning: services[0].deployments: the traffic adds up to 95 percent and blue gets the other 5; say so with default: true, or make it 100",
            ],
        ),
        (
            &service(", traffic: 1.5, default: true", ", default: true"),
            &[],
            &[
                "c.yaml:4:95: services[0].deployments[0].traffic: expected a whole number, 0 or more, found a number",
                "c.yaml:4:163: services[0].deployments[1].default: another deployment is the default already; keep default: true on one",
            ],
        ),
    ]);
}

#[test]
fn replicas_paths_and_cors_are_usable() {
    let service = |text: &str| {
        format!(
            "{{name: iris, compute_type: ACI, cors: {{origins: ['https://a/', '*'], headers: ['a b']}}, deployments: [{{name: blue, {text}}}]}}"
        )
    };
    check_services(&[
        (
            &service(
                "replicas: ['http://h', 'http://h:80', 'http://u:hunter2@h', 'h:1', 'http://h/x'], paths: {score: score}",
            ),
            &[],
            &[
                "c.yaml:4:52: services[0].cors.origins[0]: 'https://a/' is not how browsers send it; write https://a",
                "c.yaml:4:66: services[0].cors.origins[1]: '*' stands beside other origins; keep '*' alone or remove it",
                "c.yaml:4:82: services[0].cors.headers[0]: 'a b' is no header name; correct it",
                "c.yaml:4:141: services[0].deployments[0].replicas[1]: h:80 is in this list already; remove it",
                "c.yaml:4:156: services[0].deployments[0].replicas[2]: holds credentials; remove what stands before the '@'",
                "c.yaml:4:178: services[0].deployments[0].replicas[3]: has the scheme 'h'; write http:// or https://",
                "c.yaml:4:185: services[0].deployments[0].replicas[4]: has the path /x; write scheme, host and port only and the path under paths",
                "c.yaml:4:215: services[0].deployments[0].paths.score: 'score' is no path; write one that begins with '/' and has no '?'",
            ],
        ),
        (
            &service("replicas: ['http://h'], tls: {}")
                .replace("cors: {origins: ['https://a/', '*'], headers: ['a b']}, ", ""),
            &[],
            &[
                "c.yaml:4:91: services[0].deployments[0].tls: no replica is https, so nothing would be encrypted; write https:// in replicas, or remove tls",
            ],
        ),
        (
            &service("replicas: ['https://h'], tls: {ca: ca.pem}")
                .replace("cors: {origins: ['https://a/', '*'], headers: ['a b']}, ", ""),
            &[],
            &[
                "c.yaml:4:97: services[0].deployments[0].tls.ca: /nowhere/ca.pem cannot be read (No such file or directory (os error 2)): check the path and that this process may read it",
            ],
        ),
    ]);
}
