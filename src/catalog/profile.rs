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

/// Paths that are open alike. In a pattern `{}` is one segment, and nothing else is special.
pub type OpenPattern = (&'static str, Methods);

impl Profile {
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

    /// What it opens beside `/score`, `/swagger.json` and `/`. A path that fits two patterns is the former one's.
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

    /// The gRPC methods that it opens on replicas that speak HTTP/2: `package.Service/Method`.
    #[must_use]
    pub const fn opens_grpc(self) -> &'static [&'static str] {
        match self {
            Self::KserveV2 | Self::Triton => INFERENCE_GRPC,
            Self::AzureMl | Self::Mlflow | Self::TorchServe | Self::OpenAi => &[],
        }
    }
}

const MLFLOW: &[OpenPattern] = &[("/invocations", Post), ("/ping", Get), ("/health", Get), ("/version", Get)];

const KSERVE_V2: &[OpenPattern] =
    &[("/v2/models/{}/infer", Post), ("/v2/health/live", Get), ("/v2/health/ready", Get), ("/v2", Get)];

const TRITON: &[OpenPattern] = KSERVE_V2;

const TORCH_SERVE: &[OpenPattern] = &[("/predictions/{}", Post), ("/ping", Get)];

const OPEN_AI: &[OpenPattern] = &[("/v1/chat/completions", Post), ("/v1/models", Get), ("/health", Get)];

/// The Open Inference Protocol, `grpc_predict_v2.proto`.
const INFERENCE_GRPC: &[&str] = &["inference.GRPCInferenceService/ModelInfer"];
