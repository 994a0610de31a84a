//! Which endpoints a list is of, and where its next page is.

use http::Uri;

use super::place::Place;
use crate::catalog::{ComputeType, ServiceEntry};
use crate::management::Refusal;
use crate::management::operations::{ServiceFilter, Versioned};

/// Endpoints of one page, if the client does not say.
const PAGE: usize = 100;
/// Most endpoints of one page.
const MOST: usize = 1_000;

/// A list's query.
#[derive(Debug, PartialEq, Eq)]
pub struct ListQuery {
    /// Only the endpoint of this name.
    pub name: Option<String>,
    /// Compute type, tags and properties.
    pub filter: ServiceFilter,
    /// Only endpoints on a kind of compute that the gateway does not have: none.
    pub nothing: bool,
    /// `None`: by name.
    pub order: Option<Order>,
    /// At most so many.
    pub count: usize,
    /// `$skip`: where a page before ended.
    pub skip: Option<String>,
}

/// Orders beside that of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `CreatedAtAsc`
    CreatedAtAsc,
    /// `CreatedAtDesc`
    CreatedAtDesc,
    /// `UpdatedAtAsc`
    UpdatedAtAsc,
    /// `UpdatedAtDesc`
    UpdatedAtDesc,
}

impl ListQuery {
    /// Reads the query of `uri`. Parameters of other names (`api-version`) have no effect.
    ///
    /// # Errors
    /// Names the parameter that is wrong.
    pub fn parse(uri: &Uri) -> Result<Self, Refusal> {
        let mut query = Self {
            name: None,
            filter: ServiceFilter::default(),
            nothing: false,
            order: None,
            count: PAGE,
            skip: None,
        };
        for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if !value.is_empty() {
                query.set(&name, &value)?;
            }
        }
        Ok(query)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        match name.to_ascii_lowercase().as_str() {
            "name" => self.name = Some(value.to_owned()),
            "tags" => self.filter.tags = labels(value),
            "properties" => self.filter.properties = labels(value),
            "$skip" => self.skip = Some(value.to_owned()),
            "count" => {
                let count = value.parse().ok().filter(|count| (1..=MOST).contains(count));
                let wrong = || Refusal::invalid("count", format!("must be a whole number from 1 to {MOST}"));
                self.count = count.ok_or_else(wrong)?;
            }
            "computetype" => match value.to_ascii_lowercase().as_str() {
                "managed" => self.filter.compute_type = Some(ComputeType::Managed),
                "kubernetes" => self.filter.compute_type = Some(ComputeType::Aks),
                "azuremlcompute" => self.nothing = true,
                _ => {
                    let message = "must be Managed, Kubernetes or AzureMLCompute";
                    return Err(Refusal::invalid("computeType", message));
                }
            },
            "orderby" => self.order = Some(Order::parse(value)?),
            _ => {}
        }
        Ok(())
    }
}

impl Order {
    fn parse(word: &str) -> Result<Self, Refusal> {
        match word.to_ascii_lowercase().as_str() {
            "createdatasc" => Ok(Self::CreatedAtAsc),
            "createdatdesc" => Ok(Self::CreatedAtDesc),
            "updatedatasc" => Ok(Self::UpdatedAtAsc),
            "updatedatdesc" => Ok(Self::UpdatedAtDesc),
            _ => {
                let message = "must be CreatedAtAsc, CreatedAtDesc, UpdatedAtAsc or UpdatedAtDesc";
                Err(Refusal::invalid("orderBy", message))
            }
        }
    }

    /// Puts `entries`, which are in the order of their names, into this one.
    pub fn sort(self, entries: &mut [Versioned<ServiceEntry>]) {
        entries.sort_by_key(|entry| match self {
            Self::CreatedAtAsc | Self::CreatedAtDesc => entry.value.provenance.created_at,
            Self::UpdatedAtAsc | Self::UpdatedAtDesc => entry.value.provenance.updated_at,
        });
        if matches!(self, Self::CreatedAtDesc | Self::UpdatedAtDesc) {
            entries.reverse();
        }
    }
}

/// `name` and `name=value`, with commas between them.
fn labels(text: &str) -> Vec<(String, Option<String>)> {
    let label = |part: &str| match part.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (part.to_owned(), None),
    };
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(label).collect()
}

/// The same list from `skip` on.
pub fn next_link(place: &Place, uri: &Uri, skip: &str) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        if !name.eq_ignore_ascii_case("$skip") {
            query.append_pair(&name, &value);
        }
    }
    format!("{}{}?{}", place.base, uri.path(), query.append_pair("$skip", skip).finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<ListQuery, Refusal> {
        ListQuery::parse(&format!("/list?{query}").parse().unwrap())
    }

    #[test]
    fn each_parameter_of_the_contract_is_understood() {
        let query = parse(
            "api-version=2022-02-01-preview&name=iris&count=5&computeType=K%75bernetes&$skip=a%3Db\
             &tags=team,env%3Dprod&properties=&orderBy=UpdatedAtDesc",
        );
        let filter = ServiceFilter {
            compute_type: Some(ComputeType::Aks),
            tags: vec![("team".into(), None), ("env".into(), Some("prod".into()))],
            properties: Vec::new(),
        };
        let expected = ListQuery {
            name: Some("iris".into()),
            filter,
            nothing: false,
            order: Some(Order::UpdatedAtDesc),
            count: 5,
            skip: Some("a=b".into()),
        };
        assert_eq!(query, Ok(expected));
        assert_eq!(parse("").unwrap().count, PAGE);
        assert!(parse("computeType=AzureMLCompute").unwrap().nothing);
    }

    #[test]
    fn a_wrong_parameter_is_named() {
        for (query, target) in [
            ("count=0", "count"),
            ("count=1001", "count"),
            ("count=x", "count"),
            ("computeType=ACI", "computeType"),
            ("orderBy=name", "orderBy"),
        ] {
            assert_eq!(parse(query).unwrap_err().target.as_deref(), Some(target), "{query}");
        }
    }
}
