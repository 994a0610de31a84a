//! Endpoints: listed, read, made, changed, deleted, and their credentials.

use http::StatusCode;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::super::endpoint::{self, EndpointBody};
use super::super::fields::Fields;
use super::super::query::{ListQuery, Order, next_link};
use super::super::reply::Reply;
use super::{InWorkspace, gather, patched, present};
use crate::catalog::{KeySlot, ServiceEntry, ServiceSpec};
use crate::management::Refusal;
use crate::management::operations::{
    KeyChange, MetricsQuery, Page, PageOf, Precondition, TokenRule, Versioned, Written,
};

impl InWorkspace<'_> {
    /// The endpoint called `name`.
    pub(super) fn endpoint(&self, name: &str) -> Result<Versioned<ServiceEntry>, Refusal> {
        let found = present(self.operations.service(self.caller(), self.workspace(), name))?;
        let endpoint = found.filter(|entry| endpoint::is_endpoint(&entry.value));
        endpoint.ok_or_else(|| Refusal::not_found(format_args!("online endpoint '{name}'")))
    }

    fn tell(&self, entry: &Versioned<ServiceEntry>) -> Reply {
        Reply::ok(self.render(&entry.value)).in_version(entry.version)
    }

    fn render(&self, entry: &ServiceEntry) -> Value {
        endpoint::render(entry, &self.operations.uris(entry), &self.place)
    }

    pub(super) fn get_endpoint(&self, name: &str) -> Result<Reply, Refusal> {
        self.endpoint(name).map(|entry| self.tell(&entry))
    }

    pub(super) fn list_endpoints(&self) -> Result<Reply, Refusal> {
        let query = ListQuery::parse(&self.call.uri)?;
        let page = self.page(&query)?;
        let value: Vec<_> = page
            .items
            .iter()
            .map(|entry| &entry.value)
            .filter(|entry| endpoint::is_endpoint(entry))
            .map(|entry| self.render(entry))
            .collect();
        let mut body = json!({ "value": value });
        if let (Some(members), Some(next)) = (body.as_object_mut(), page.next) {
            // Left out on the last page: not every client takes null for an end.
            members.insert("nextLink".into(), next_link(&self.place, &self.call.uri, &next).into());
        }
        Ok(Reply::ok(body))
    }

    fn page(&self, query: &ListQuery) -> Result<PageOf<Versioned<ServiceEntry>>, Refusal> {
        let list =
            |page: &Page| self.operations.services(self.caller(), self.workspace(), &query.filter, page);
        if query.nothing {
            return Ok(PageOf { items: Vec::new(), next: None });
        }
        if let Some(name) = &query.name {
            let mut items = gather(list)?;
            items.retain(|entry| entry.value.name.as_str() == name);
            return Ok(PageOf { items, next: None });
        }
        match query.order {
            None => list(&Page { limit: query.count, cursor: query.skip.clone() }),
            Some(order) => ordered(gather(list)?, order, query),
        }
    }

    /// Azure Monitor's "Metrics - List". Parameters that the gateway does not know (`api-version`, `orderby`, `resultType`,
    /// `metricnamespace`) have no effect.
    pub(super) fn metrics(&self, name: &str) -> Result<Reply, Refusal> {
        let given = self.call.uri.query().unwrap_or_default();
        let parameter = |wanted: &str| {
            let mut all = url::form_urlencoded::parse(given.as_bytes());
            all.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.into_owned())
        };
        let query = MetricsQuery::parse(parameter, OffsetDateTime::now_utc())?;
        let told = self.operations.metrics(self.caller(), self.workspace(), name, &query)?;
        Ok(Reply::ok(json!(told)))
    }

    pub(super) fn put_endpoint(&mut self, name: &str) -> Result<Reply, Refusal> {
        let mut body = EndpointBody::parse(self.take_body())?;
        let found = present(self.operations.service(self.caller(), self.workspace(), name))?;
        match found {
            Some(_) => self.change_endpoint(name, &|entry| body.apply(Some(entry), &self.operation_id())),
            None => self.create_endpoint(name, &mut body),
        }
    }

    fn create_endpoint(&self, name: &str, body: &mut EndpointBody) -> Result<Reply, Refusal> {
        let spec = body.apply(None, &self.operation_id())?;
        let precondition = match self.call.precondition {
            // Nothing was there a moment ago, and nothing may be replaced that was not looked at.
            Precondition::None => Precondition::Absent,
            asked => asked,
        };
        let (caller, workspace) = (self.caller(), self.workspace());
        let put = self.operations.put_service(caller, workspace, name, spec, body.take_keys(), precondition);
        put.map(|(entry, written)| self.tell(&entry).written(written, self.operation_uri()))
    }

    /// Changes tags, and whatever else the patch names, of what is there.
    pub(super) fn patch_endpoint(&mut self, name: &str) -> Result<Reply, Refusal> {
        let patch = self.take_body();
        self.endpoint(name)?;
        self.change_endpoint(name, &|entry| {
            let changed = patched(self.render(entry), patch.clone())?;
            EndpointBody::parse(changed)?.apply(Some(entry), &self.operation_id())
        })
    }

    fn change_endpoint(
        &self,
        name: &str,
        change: &dyn Fn(&ServiceEntry) -> Result<ServiceSpec, Refusal>,
    ) -> Result<Reply, Refusal> {
        let (caller, workspace) = (self.caller(), self.workspace());
        let entry =
            self.operations.change_service(caller, workspace, name, self.call.precondition, change)?;
        Ok(self.tell(&entry).written(Written::Replaced, self.operation_uri()))
    }

    /// 204 if there is none.
    pub(super) fn delete_endpoint(&self, name: &str) -> Result<Reply, Refusal> {
        if present(self.endpoint(name))?.is_none() {
            return Ok(Reply::empty(StatusCode::NO_CONTENT));
        }
        let (caller, workspace) = (self.caller(), self.workspace());
        self.operations.delete_service(caller, workspace, name, self.call.precondition)?;
        Ok(Reply::empty(StatusCode::OK))
    }

    pub(super) fn list_keys(&self, name: &str) -> Result<Reply, Refusal> {
        self.endpoint(name)?;
        let keys = self.operations.keys(self.caller(), self.workspace(), name)?;
        Ok(Reply::ok(json!({
            "primaryKey": keys.primary.value.expose_secret(),
            "secondaryKey": keys.secondary.value.expose_secret(),
        })))
    }

    pub(super) fn regenerate_key(&mut self, name: &str) -> Result<Reply, Refusal> {
        let mut body = Fields::of_body(self.take_body())?;
        let slot = match body.text("keyType")?.unwrap_or_default().to_ascii_lowercase().as_str() {
            "primary" => KeySlot::Primary,
            "secondary" => KeySlot::Secondary,
            _ => return Err(Refusal::invalid("keyType", "must be Primary or Secondary")),
        };
        let value = body.text("keyValue")?.filter(|value| !value.is_empty()).map(Into::into);
        self.endpoint(name)?;
        let change = KeyChange { value, ..KeyChange::default() };
        self.operations.regenerate_key(self.caller(), self.workspace(), name, slot, change)?;
        Ok(Reply::empty(StatusCode::OK))
    }

    pub(super) fn token(&self, name: &str) -> Result<Reply, Refusal> {
        self.endpoint(name)?;
        let token = self.operations.issue_token(self.caller(), self.workspace(), name, TokenRule::V2)?;
        Ok(Reply::ok(json!({
            "accessToken": token.token.expose_secret(),
            "tokenType": "Bearer",
            "expiryTimeUtc": token.expires_at.unix_timestamp(),
            "refreshAfterTimeUtc": token.refresh_after.unix_timestamp(),
        })))
    }
}

/// One page of `all` in another order than that of names; `$skip` is the number of endpoints before it.
fn ordered(
    mut all: Vec<Versioned<ServiceEntry>>,
    order: Order,
    query: &ListQuery,
) -> Result<PageOf<Versioned<ServiceEntry>>, Refusal> {
    order.sort(&mut all);
    let wrong = || Refusal::invalid("$skip", "is none that a page before has given");
    let skip = query.skip.as_ref().map_or(Ok(0), |skip| skip.parse::<usize>().map_err(|_| wrong()))?;
    let left = all.len().saturating_sub(skip);
    let items: Vec<_> = all.into_iter().skip(skip).take(query.count).collect();
    let next = (items.len() < left).then(|| (skip + items.len()).to_string());
    Ok(PageOf { items, next })
}
