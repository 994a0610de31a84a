//! All assignments and custom roles at hand, so that a call's rights cost no more than a look at one row.
//!
//! Every change of a role writes the generation row, whichever process of the store makes it. An index of another
//! generation is read anew before it is used: a role taken away is gone with the next call, everywhere.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::de::DeserializeOwned;

use crate::catalog::{ActionSet, BuiltInRole, CustomRole, Grantee, RoleAssignment, Scope};
use crate::management::operations::Versioned;
use crate::management::operations::rows::{Rows, decode};
use crate::management::{Cause, Grants, Refusal};
use crate::store::{Batch, Expect, Store, StoreError, Table};

/// Row of [`Table::Meta`] that every change of roles writes.
const GENERATION: &[u8] = b"roles/generation";

/// How often reading begins anew because roles change meanwhile.
const ROUNDS: u32 = 20;

/// The index in use.
pub(in crate::management::operations) struct Roles(ArcSwap<RoleIndex>);

/// Who holds which role where, at one generation.
#[derive(Default)]
pub(in crate::management::operations) struct RoleIndex {
    /// Version of the generation row; `None`: no role was ever changed.
    generation: Option<u64>,
    /// By id.
    assignments: BTreeMap<String, RoleAssignment>,
    /// By lower-case name.
    custom: BTreeMap<String, Versioned<CustomRole>>,
    principals: HashMap<String, Arc<Grants>>,
    groups: HashMap<String, Arc<Grants>>,
    nothing: Arc<Grants>,
}

/// A role that can be assigned.
pub(in crate::management::operations) struct Role {
    /// As it is spelled in assignments.
    pub(in crate::management::operations) name: String,
    /// What it allows.
    pub(in crate::management::operations) actions: ActionSet,
}

impl Roles {
    /// Reads all of them.
    pub(in crate::management::operations) fn load(store: &dyn Store) -> Result<Self, Refusal> {
        Ok(Self(ArcSwap::from_pointee(RoleIndex::load(store)?)))
    }

    /// The index as the store has it now; costs one row if nothing has changed.
    pub(in crate::management::operations) fn current(
        &self,
        store: &dyn Store,
    ) -> Result<Arc<RoleIndex>, Refusal> {
        let current = self.0.load_full();
        if current.generation == generation(store)? {
            return Ok(current);
        }
        let new = Arc::new(RoleIndex::load(store)?);
        self.0.store(Arc::clone(&new));
        Ok(new)
    }
}

impl RoleIndex {
    fn load(store: &dyn Store) -> Result<Self, Refusal> {
        for _ in 0..ROUNDS {
            let before = generation(store)?;
            let index =
                Self::build(before, all(store, Table::RoleAssignments)?, all(store, Table::CustomRoles)?);
            if generation(store)? == before {
                return Ok(index);
            }
        }
        Err(Refusal::new(Cause::Unavailable, "roles change faster than they can be read; try again"))
    }

    fn build(
        generation: Option<u64>,
        assignments: Vec<Versioned<RoleAssignment>>,
        custom: Vec<Versioned<CustomRole>>,
    ) -> Self {
        let mut index = Self { generation, ..Self::default() };
        index.custom = custom.into_iter().map(|role| (role.value.name.to_ascii_lowercase(), role)).collect();
        for Versioned { value: assignment, .. } in assignments {
            let actions = index.role(&assignment.role).map_or(ActionSet::NONE, |role| role.actions);
            let grants = match &assignment.grantee {
                Grantee::Principal(name) => index.principals.entry(name.clone()),
                Grantee::Group(name) => index.groups.entry(name.clone()),
            };
            Arc::make_mut(grants.or_default()).add(&assignment.scope, actions);
            index.assignments.insert(assignment.id.clone(), assignment);
        }
        index
    }

    /// What `principal`, a member of `groups`, may do.
    pub(in crate::management::operations) fn grants(
        &self,
        principal: &str,
        groups: &[String],
    ) -> Arc<Grants> {
        let mut grants = Arc::clone(self.principals.get(principal).unwrap_or(&self.nothing));
        for more in groups.iter().filter_map(|group| self.groups.get(group)) {
            Arc::make_mut(&mut grants).merge(more);
        }
        grants
    }

    /// The role called `name`, built-in or custom, without regard to case.
    pub(in crate::management::operations) fn role(&self, name: &str) -> Option<Role> {
        if let Some(role) = BuiltInRole::named(name) {
            return Some(Role { name: role.as_str().to_owned(), actions: role.actions() });
        }
        let role = &self.custom(name)?.value;
        Some(Role { name: role.name.clone(), actions: actions_of(role) })
    }

    /// The custom role called `name`, without regard to case.
    pub(super) fn custom(&self, name: &str) -> Option<&Versioned<CustomRole>> {
        self.custom.get(&name.to_ascii_lowercase())
    }

    /// All custom roles in the order of their lower-case names.
    pub(super) fn custom_roles(&self) -> &BTreeMap<String, Versioned<CustomRole>> {
        &self.custom
    }

    /// All assignments in the order of their ids.
    pub(super) fn assignments(&self) -> &BTreeMap<String, RoleAssignment> {
        &self.assignments
    }

    /// Whether somebody is Owner of the gateway, the assignment `but` apart.
    pub(in crate::management::operations) fn has_owner(&self, but: Option<&str>) -> bool {
        let owns = |it: &RoleAssignment| it.scope == Scope::Gateway && it.role == BuiltInRole::Owner.as_str();
        self.assignments.values().any(|it| Some(it.id.as_str()) != but && owns(it))
    }

    /// Makes `batch`, which changes roles, count only against this index, and ends it. Once per batch.
    pub(in crate::management::operations) fn outdate(&self, batch: &mut Batch) {
        let expect = self.generation.map_or(Expect::Absent, Expect::Version);
        batch.expect(Table::Meta, GENERATION, expect).put(Table::Meta, GENERATION, Vec::new());
    }
}

/// What a stored role allows. A pattern that covers nothing any more, in a gateway of another version, allows nothing.
fn actions_of(role: &CustomRole) -> ActionSet {
    let covered = |patterns: &[String]| {
        patterns.iter().fold(ActionSet::NONE, |set, pattern| {
            let pattern = std::slice::from_ref(pattern);
            set.and(ActionSet::of_patterns(pattern, &[]).unwrap_or(ActionSet::NONE))
        })
    };
    covered(&role.actions).without(covered(&role.not_actions))
}

fn generation(store: &dyn Store) -> Result<Option<u64>, StoreError> {
    Ok(store.get(Table::Meta, GENERATION)?.map(|row| row.version))
}

/// All rows of a table. One that cannot be read is an error: what is left out could be what takes rights away.
fn all<T: DeserializeOwned>(store: &dyn Store, table: Table) -> Result<Vec<Versioned<T>>, Refusal> {
    Rows::new(store, table, &[], None).map(|row| decode(table, &row?)).collect()
}
