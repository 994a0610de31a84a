//! What kinds of model server there are, which of its paths each one opens to callers and where it scores.
//!
//! Opened is what infers, describes and tells health. Whatever loads, unloads or changes something in the server, or tells
//! of the machine, stays closed: none of it is in these lists, and what is not in a list is answered 404.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Methods;
use super::Methods::{Get, Post};

/// The kind of server in a service's containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Profile")]
pub enum Profile {
    /// The Azure ML inference server, or any container with `/score`, `/swagger.json` and `/`.
    #[default]
    #[serde(rename = "azureml")]
    AzureMl,
    /// `mlflow models serve`.
    Mlflow,
    /// The Open Inference Protocol: `MLServer`, KServe runtimes.
    KserveV2,
    /// NVIDIA Triton.
    Triton,
    /// `TorchServe`.
    #[serde(rename = "torchserve")]
    TorchServe,
    /// The OpenAI API: vLLM and its like.
    #[serde(rename = "openai")]
    OpenAi,
}

/// Paths that are open alike. In a pattern a segment that begins with `{}` is a name and what follows it; nothing else is
/// special.
pub type OpenPattern = (&'static str, Methods);

impl Profile {
    /// All, in the order of their declaration.
    pub const ALL: [Self; 6] =
        [Self::AzureMl, Self::Mlflow, Self::KserveV2, Self::Triton, Self::TorchServe, Self::OpenAi];

    /// The word of the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AzureMl => "azureml",
            Self::Mlflow => "mlflow",
            Self::KserveV2 => "kserve-v2",
            Self::Triton => "triton",
            Self::TorchServe => "torchserve",
            Self::OpenAi => "openai",
        }
    }

    /// The container's path for `/score`; `None`: it depends on the model, so that the deployment has to set one.
    #[must_use]
    pub const fn score_path(self) -> Option<&'static str> {
        match self {
            Self::AzureMl => Some("/score"),
            Self::Mlflow => Some("/invocations"),
            Self::OpenAi => Some("/v1/chat/completions"),
            Self::KserveV2 | Self::Triton | Self::TorchServe => None,
        }
    }

    /// The container's path for `/swagger.json`; `None`: it has no such document.
    #[must_use]
    pub const fn swagger_path(self) -> Option<&'static str> {
        match self {
            Self::AzureMl => Some("/swagger.json"),
            Self::KserveV2 => Some("/v2/docs/dataplane.json"),
            Self::TorchServe => Some("/api-description"),
            Self::OpenAi => Some("/openapi.json"),
            Self::Mlflow | Self::Triton => None,
        }
    }

    /// The container's path for `/`.
    #[must_use]
    pub const fn health_path(self) -> &'static str {
        match self {
            Self::AzureMl => "/",
            Self::Mlflow | Self::TorchServe => "/ping",
            Self::KserveV2 | Self::Triton => "/v2/health/ready",
            Self::OpenAi => "/health",
        }
    }

    /// What it opens beside `/score`, `/swagger.json` and `/`, but for what it closes.
    #[must_use]
    pub const fn opens(self) -> &'static [OpenPattern] {
        match self {
            Self::AzureMl => &[],
            Self::Mlflow => MLFLOW,
            Self::KserveV2 => KSERVE_V2,
            Self::Triton => TRITON,
            Self::TorchServe => TORCH_SERVE,
            Self::OpenAi => OPEN_AI,
        }
    }

    /// Paths that fit what it opens and that its server reads as something else.
    #[must_use]
    pub const fn closes(self) -> &'static [&'static str] {
        match self {
            Self::KserveV2 | Self::Triton => MODEL_STATISTICS,
            Self::AzureMl | Self::Mlflow | Self::TorchServe | Self::OpenAi => &[],
        }
    }

    /// The gRPC methods that it opens on replicas that speak HTTP/2: `package.Service/Method`.
    #[must_use]
    pub const fn opens_grpc(self) -> &'static [&'static str] {
        match self {
            Self::KserveV2 | Self::Triton => INFERENCE_GRPC,
            Self::AzureMl | Self::Mlflow | Self::TorchServe | Self::OpenAi => &[],
        }
    }
}

/// MLflow, `pyfunc/scoring_server`.
const MLFLOW: &[OpenPattern] = &[("/invocations", Post), ("/ping", Get), ("/health", Get), ("/version", Get)];

/// Open Inference Protocol, `rest_predict_v2`; the streams and `generate` as `MLServer` has them. Closed: its repository API
/// and its pages for people.
const KSERVE_V2: &[OpenPattern] = &[
    ("/v2/models/{}/infer", Post),
    ("/v2/models/{}/versions/{}/infer", Post),
    ("/v2/models/{}/infer_stream", Post),
    ("/v2/models/{}/versions/{}/infer_stream", Post),
    ("/v2/models/{}/generate", Post),
    ("/v2/models/{}/versions/{}/generate", Post),
    ("/v2/models/{}/generate_stream", Post),
    ("/v2/models/{}/versions/{}/generate_stream", Post),
    ("/v2/models/{}/ready", Get),
    ("/v2/models/{}/versions/{}/ready", Get),
    ("/v2/models/{}", Get),
    ("/v2/models/{}/versions/{}", Get),
    ("/v2/health/ready", Get),
    ("/v2/health/live", Get),
    ("/v2", Get),
];

/// Triton, `http_server.cc`: what its own `--http-restricted-api` calls health, metadata and inference. Closed: shared memory,
/// model-config, model-repository, statistics, trace and logging.
const TRITON: &[OpenPattern] = &[
    ("/v2/models/{}/infer", Post),
    ("/v2/models/{}/versions/{}/infer", Post),
    ("/v2/models/{}/generate", Post),
    ("/v2/models/{}/versions/{}/generate", Post),
    ("/v2/models/{}/generate_stream", Post),
    ("/v2/models/{}/versions/{}/generate_stream", Post),
    ("/v2/models/{}/ready", Get),
    ("/v2/models/{}/versions/{}/ready", Get),
    ("/v2/models/{}", Get),
    ("/v2/models/{}/versions/{}", Get),
    ("/v2/health/ready", Get),
    ("/v2/health/live", Get),
    ("/v2", Get),
];

/// `TorchServe`, "Inference API" and "Workflow Inference API", with what it has of KServe's. Closed: the management API
/// (`/models`, `/workflows`) and metrics, should they be on the same port.
const TORCH_SERVE: &[OpenPattern] = &[
    ("/predictions/{}", Post),
    ("/predictions/{}/{}", Post),
    ("/explanations/{}", Post),
    ("/explanations/{}/{}", Post),
    ("/wfpredict/{}", Post),
    ("/v1/models/{}:predict", Post),
    ("/v1/models/{}:explain", Post),
    ("/v2/models/{}/infer", Post),
    ("/v2/models/{}/explain", Post),
    ("/ping", Get),
    ("/api-description", Get),
];

/// vLLM, "Online Serving" and "API Key Authentication Limitations": what infers, describes and tells health. Closed: adapters,
/// sleep, pause, scaling, weights, caches, profiler, remote calls, load and metrics.
const OPEN_AI: &[OpenPattern] = &[
    ("/v1/chat/completions", Post),
    ("/v1/completions", Post),
    ("/v1/responses", Post),
    ("/v1/embeddings", Post),
    ("/v1/models", Get),
    ("/v1/models/{}", Get),
    ("/v1/chat/completions/batch", Post),
    ("/v1/responses/{}", Get),
    ("/v1/responses/{}/cancel", Post),
    ("/v1/audio/transcriptions", Post),
    ("/v1/audio/translations", Post),
    ("/v1/audio/speech", Post),
    ("/v1/realtime", Get),
    ("/v1/messages", Post),
    ("/v1/messages/count_tokens", Post),
    ("/v1/rerank", Post),
    ("/v2/rerank", Post),
    ("/rerank", Post),
    ("/v1/score", Post),
    ("/v2/embed", Post),
    ("/pooling", Post),
    ("/classify", Post),
    ("/tokenize", Post),
    ("/detokenize", Post),
    ("/health", Get),
    ("/version", Get),
];

/// `/v2/models/stats` is Triton's statistics of all models and no model's name.
const MODEL_STATISTICS: &[&str] = &["/v2/models/stats"];

/// Open Inference Protocol, `grpc_predict_v2.proto`, with Triton's stream. Closed: the repository, shared memory, statistics,
/// configuration, trace and log methods of the same gRPC service.
const INFERENCE_GRPC: &[&str] = &[
    "inference.GRPCInferenceService/ModelInfer",
    "inference.GRPCInferenceService/ModelStreamInfer",
    "inference.GRPCInferenceService/ModelReady",
    "inference.GRPCInferenceService/ModelMetadata",
    "inference.GRPCInferenceService/ServerLive",
    "inference.GRPCInferenceService/ServerReady",
    "inference.GRPCInferenceService/ServerMetadata",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_the_one_of_the_configuration() {
        for profile in Profile::ALL {
            assert_eq!(serde_json::to_value(profile).unwrap(), profile.as_str());
        }
    }

    #[test]
    fn patterns_are_plain_paths_and_each_stands_once() {
        for profile in Profile::ALL {
            let patterns: Vec<_> = profile.opens().iter().map(|(pattern, _)| *pattern).collect();
            for (i, pattern) in patterns.iter().enumerate() {
                assert!(!patterns[..i].contains(pattern), "{profile:?} {pattern}");
                let names = pattern.replace("{}", "name");
                assert!(
                    names.starts_with('/')
                        && !names.ends_with('/')
                        && !names.contains(['{', '}', '%', '?', '*'])
                );
                assert!(!matches!(*pattern, "/score" | "/swagger.json"), "{profile:?} opens these anyway");
            }
        }
    }
}
