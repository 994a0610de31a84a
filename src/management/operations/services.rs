//! Services and their deployments.

use super::{
    Operations, Page, PageOf, Precondition, ServiceFilter, ServiceUris, SuppliedKeys, Versioned, Written,
    unbuilt,
};
use crate::catalog::{DeploymentSpec, ServiceEntry, ServiceSpec};
use crate::management::{Caller, Refusal};

#[allow(clippy::missing_errors_doc, unused_variables, clippy::needless_pass_by_value, reason = "seam")]
impl Operations {
    /// Makes or replaces a service, whole. A change of the auth mode is one atomic switch. Keys are made for every new
    /// service whatever its mode, so that a switch to `key` has some.
    pub fn put_service(
        &self,
        caller: &Caller,
        workspace: &str,
        name: &str,
        spec: ServiceSpec,
        keys: SuppliedKeys,
        precondition: Precondition,
    ) -> Result<(Versioned<ServiceEntry>, Written), Refusal> {
        unbuilt()
    }
    pub fn service(
        &self,
        caller: &Caller,
        workspace: &str,
        name: &str,
    ) -> Result<Versioned<ServiceEntry>, Refusal> {
        unbuilt()
    }
    /// In the order of their names.
    pub fn services(
        &self,
        caller: &Caller,
        workspace: &str,
        filter: &ServiceFilter,
        page: &Page,
    ) -> Result<PageOf<Versioned<ServiceEntry>>, Refusal> {
        unbuilt()
    }
    /// Reads, lets `change` make a new spec of what was read, and writes it, atomically.
    pub fn change_service(
        &self,
        caller: &Caller,
        workspace: &str,
        name: &str,
        precondition: Precondition,
        change: &dyn Fn(&ServiceEntry) -> Result<ServiceSpec, Refusal>,
    ) -> Result<Versioned<ServiceEntry>, Refusal> {
        unbuilt()
    }
    pub fn delete_service(
        &self,
        caller: &Caller,
        workspace: &str,
        name: &str,
        precondition: Precondition,
    ) -> Result<(), Refusal> {
        unbuilt()
    }
    pub fn put_deployment(
        &self,
        caller: &Caller,
        workspace: &str,
        service: &str,
        name: &str,
        spec: DeploymentSpec,
        precondition: Precondition,
    ) -> Result<(Versioned<ServiceEntry>, Written), Refusal> {
        unbuilt()
    }
    pub fn delete_deployment(
        &self,
        caller: &Caller,
        workspace: &str,
        service: &str,
        name: &str,
        precondition: Precondition,
    ) -> Result<(), Refusal> {
        unbuilt()
    }
    /// The URIs that are given out for `service`.
    #[must_use]
    pub fn uris(&self, service: &ServiceEntry) -> ServiceUris {
        ServiceUris { scoring: String::new(), swagger: String::new() }
    }
}
