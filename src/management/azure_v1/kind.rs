//! The three kinds of web service that SDK v1 knows, by the word that its classes insist on.

use serde_json::{Value, json};

use crate::catalog::{ComputeType, ServiceSpec};
use crate::management::Refusal;

/// What a service is to SDK v1: `AciWebservice`, `AksWebservice` or `AksEndpoint`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One container, called by its own host.
    Aci,
    /// One version on a cluster.
    Aks,
    /// Several versions on a cluster behind one address, which share the traffic.
    AksEndpoint,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Aci, Self::Aks, Self::AksEndpoint];

    /// The kind of a service; `None` for a Managed one, which this SDK never sees.
    #[must_use]
    pub fn of(spec: &ServiceSpec) -> Option<Self> {
        let is_endpoint =
            spec.azure.get(Self::MARK).and_then(Value::as_str) == Some(Self::AksEndpoint.as_str());
        match spec.compute_type {
            ComputeType::Aci => Some(Self::Aci),
            ComputeType::Aks if is_endpoint => Some(Self::AksEndpoint),
            ComputeType::Aks => Some(Self::Aks),
            ComputeType::Managed => None,
        }
    }

    /// The member of [`ServiceSpec::azure`] that tells an endpoint from a plain AKS service.
    pub const MARK: &str = "computeType";

    /// The kind called `word`, without regard to case.
    ///
    /// # Errors
    /// Names the words that there are.
    pub fn named(word: &str) -> Result<Self, Refusal> {
        Self::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(word)).ok_or_else(|| {
            Refusal::invalid("computeType", format!("'{word}' is none of ACI, AKS and AKSENDPOINT"))
        })
    }

    /// The word of `computeType`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aci => "ACI",
            Self::Aks => "AKS",
            Self::AksEndpoint => "AKSENDPOINT",
        }
    }

    /// What it is to the gateway.
    #[must_use]
    pub const fn compute_type(self) -> ComputeType {
        match self {
            Self::Aci => ComputeType::Aci,
            Self::Aks | Self::AksEndpoint => ComputeType::Aks,
        }
    }

    /// Members that mean nothing to the gateway but that the SDK insists on, with Azure's documented defaults.
    #[must_use]
    pub fn defaults(self) -> Value {
        match self {
            Self::Aci => json!({
                "location": null,
                "containerResourceRequirements": { "cpu": 0.1, "memoryInGB": 0.5 },
                "appInsightsEnabled": false,
                "dataCollection": { "storageEnabled": false, "eventHubEnabled": false },
                "sslEnabled": false,
                "sslCertificate": null,
                "sslKey": null,
                "cname": null,
                "dnsNameLabel": null,
                "vnetConfiguration": null,
                "encryptionProperties": null,
                "imageId": null,
                "imageDigest": null,
                "environmentImageRequest": null,
            }),
            Self::Aks => json!({
                "computeName": null,
                "namespace": null,
                "numReplicas": null,
                "autoScaler": {
                    "autoscaleEnabled": true,
                    "minReplicas": 1,
                    "maxReplicas": 10,
                    "targetUtilization": 70,
                    "refreshPeriodInSeconds": 1,
                },
                "containerResourceRequirements": {
                    "cpu": 0.1, "cpuLimit": null, "memoryInGB": 0.5, "memoryInGBLimit": null, "gpu": null,
                },
                "livenessProbeRequirements": {
                    "initialDelaySeconds": 310,
                    "periodSeconds": 10,
                    "failureThreshold": 3,
                    "successThreshold": 1,
                    "timeoutSeconds": 2,
                },
                "appInsightsEnabled": false,
                "dataCollection": { "storageEnabled": false, "eventHubEnabled": false },
                "imageId": null,
                "imageDigest": null,
                "environmentImageRequest": null,
            }),
            Self::AksEndpoint => {
                json!({ "computeName": null, "namespace": null, "appInsightsEnabled": false })
            }
        }
    }
}
