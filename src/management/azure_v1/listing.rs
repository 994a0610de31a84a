//! The query of a list: which services, which page.

use serde_json::Value;

use crate::catalog::ServiceEntry;
use crate::management::Refusal;

use super::kind::Kind;

/// Where the next page begins, in queries.
const CURSOR: &str = "$skipToken";
/// Most services on one page; a larger `count` means this one.
const MOST: usize = 1_000;
/// Services on a page whose size nobody has named.
const USUAL: usize = 100;

/// A query, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Of this kind only.
    pub kind: Option<Kind>,
    /// Nothing can pass: a kind of service that the gateway never has.
    pub is_empty: bool,
    /// With these tags.
    pub tags: Vec<(String, Option<String>)>,
    /// With these properties.
    pub properties: Vec<(String, Option<String>)>,
    /// At most so many.
    pub count: usize,
    /// After the page before.
    pub cursor: Option<String>,
    /// Of what they are made: which member, and its value.
    made_of: Vec<(Part, String)>,
    sent: Vec<(String, String)>,
}

/// What a service can be found by that only Azure's clients know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    ImageId,
    ImageName,
    ImageDigest,
    ModelId,
    ModelName,
    Name,
}

impl Query {
    /// Reads what follows the `?`. Names that it does not know (`expand`, `orderby`) change nothing: services come whole,
    /// in the order of their names.
    ///
    /// # Errors
    /// `count` is no number from 1 on.
    pub fn read(pairs: &[(String, String)]) -> Result<Self, Refusal> {
        let mut query = Self { count: USUAL, sent: pairs.to_vec(), ..Self::default() };
        for (name, value) in pairs {
            match name.as_str() {
                "computeType" => match Kind::named(value) {
                    Ok(kind) => query.kind = Some(kind),
                    Err(_) => query.is_empty = true,
                },
                "tags" | "tag" => query.tags.extend(terms(value)),
                "properties" => query.properties.extend(terms(value)),
                "count" => {
                    let count = value.parse().ok().filter(|count| *count > 0);
                    query.count = count
                        .map(|count: usize| count.min(MOST))
                        .ok_or_else(|| Refusal::invalid("count", "must be a whole number from 1 on"))?;
                }
                CURSOR | "skipToken" => query.cursor = Some(value.clone()),
                "imageId" => query.made_of.push((Part::ImageId, value.clone())),
                "imageName" => query.made_of.push((Part::ImageName, value.clone())),
                "imageDigest" => query.made_of.push((Part::ImageDigest, value.clone())),
                "modelId" => query.made_of.push((Part::ModelId, value.clone())),
                "modelName" => query.made_of.push((Part::ModelName, value.clone())),
                "name" => query.made_of.push((Part::Name, value.clone())),
                _ => {}
            }
        }
        Ok(query)
    }

    /// Whether a service passes what the gateway's own filter has no word for.
    #[must_use]
    pub fn accepts(&self, kind: Kind, entry: &ServiceEntry) -> bool {
        self.kind.is_none_or(|wanted| wanted == kind)
            && self.made_of.iter().all(|(part, value)| part.is_in(entry, value))
    }

    /// The link to the page that begins at `next`.
    #[must_use]
    pub fn next_link(&self, url: &str, next: &str) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.sent.iter().filter(|(name, _)| name != CURSOR && name != "skipToken"));
        query.append_pair(CURSOR, next);
        format!("{url}?{}", query.finish())
    }
}

impl Part {
    fn is_in(self, entry: &ServiceEntry, wanted: &str) -> bool {
        let bags =
            std::iter::once(&entry.spec.azure).chain(entry.spec.deployments.values().map(|it| &it.azure));
        let text = |value: Option<&Value>, matches: &dyn Fn(&str) -> bool| {
            value.and_then(Value::as_str).is_some_and(matches)
        };
        // An id is a name and a version with `:` between them.
        let named = |id: &str| id.rsplit_once(':').map_or(id, |(name, _)| name) == wanted;
        let equal = |id: &str| id == wanted;
        if self == Self::Name {
            return entry.name.as_str() == wanted;
        }
        bags.into_iter().any(|bag| {
            let models = || {
                bag.get("environmentImageRequest").and_then(|it| it.get("modelIds")).and_then(Value::as_array)
            };
            match self {
                Self::ImageId => text(bag.get("imageId"), &equal),
                Self::ImageName => text(bag.get("imageId"), &named),
                Self::ImageDigest => text(bag.get("imageDigest"), &equal),
                Self::ModelId => models().is_some_and(|ids| ids.iter().any(|id| text(Some(id), &equal))),
                Self::ModelName => models().is_some_and(|ids| ids.iter().any(|id| text(Some(id), &named))),
                Self::Name => false,
            }
        })
    }
}

/// The pairs of a filter that is sent as a JSON object.
///
/// # Errors
/// It is no object of plain values.
pub fn pairs(body: Value) -> Result<Vec<(String, String)>, Refusal> {
    let members = match body {
        Value::Null => return Ok(Vec::new()),
        Value::Object(members) => members,
        _ => return Err(Refusal::invalid("body", "must be a JSON object")),
    };
    let pair = |(name, value): (String, Value)| match value {
        Value::Null => None,
        Value::String(text) => Some(Ok((name, text))),
        Value::Bool(_) | Value::Number(_) => Some(Ok((name, value.to_string()))),
        Value::Array(_) | Value::Object(_) => Some(Err(Refusal::invalid(name, "must be a text or a number"))),
    };
    let mut pairs: Vec<_> = members.into_iter().filter_map(pair).collect::<Result<_, _>>()?;
    for (name, _) in &mut pairs {
        if name == "continuationToken" {
            CURSOR.clone_into(name);
        }
    }
    Ok(pairs)
}

/// `a,b=c`: has `a`; has `b`, and it is `c`.
fn terms(text: &str) -> Vec<(String, Option<String>)> {
    let terms = text.split(',').filter(|term| !term.is_empty());
    terms
        .map(|term| match term.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (term.to_owned(), None),
        })
        .collect()
}
