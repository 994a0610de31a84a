//! What callers of the management plane may do: actions in Azure's spelling, sets of them, and the three built-in roles.

use std::fmt;

/// One thing a caller of the management plane may do; each has the string that Azure role definitions name it by.
///
/// Source of the spellings: Azure's resource provider operations of `Microsoft.MachineLearningServices`,
/// `Microsoft.Authorization` and `Microsoft.Insights`. What Azure has no word for begins with `Scoregate/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Action {
    /// See a workspace and what is in it; also enough for a v1 scoring token.
    WorkspaceRead,
    /// Make or change a workspace.
    WorkspaceWrite,
    /// Delete a workspace.
    WorkspaceDelete,
    /// See services of compute type ACI or AKS.
    ServiceRead,
    /// Make or change an ACI service.
    AciWrite,
    /// Delete an ACI service.
    AciDelete,
    /// List the keys of an ACI service.
    AciListKeys,
    /// Replace a key of an ACI service.
    AciRegenerateKeys,
    /// Make or change an AKS service.
    AksWrite,
    /// Delete an AKS service.
    AksDelete,
    /// List the keys of an AKS service.
    AksListKeys,
    /// Replace a key of an AKS service.
    AksRegenerateKeys,
    /// See Managed services.
    EndpointRead,
    /// Make or change a Managed service.
    EndpointWrite,
    /// Delete a Managed service.
    EndpointDelete,
    /// List the keys of a Managed service.
    EndpointListKeys,
    /// Replace a key of a Managed service.
    EndpointRegenerateKeys,
    /// Get a scoring token of a Managed service.
    EndpointToken,
    /// Call a web service.
    Score,
    /// See models' metadata.
    ModelRead,
    /// See metrics.
    MetricsRead,
    /// See the records of calls.
    RecordsRead,
    /// See the activity log.
    ActivityRead,
    /// See who has which role.
    RoleAssignmentRead,
    /// Give a role.
    RoleAssignmentWrite,
    /// Take a role away.
    RoleAssignmentDelete,
    /// See role definitions.
    RoleDefinitionRead,
    /// Make or change a custom role.
    RoleDefinitionWrite,
    /// Delete a custom role.
    RoleDefinitionDelete,
    /// Revoke scoring tokens, one or all of a principal.
    TokenRevoke,
    /// Replace the workspace's token signing key.
    SigningKeyRotate,
    /// See management tokens (never the token itself).
    ManagementTokenRead,
    /// Make a management token.
    ManagementTokenWrite,
    /// Revoke a management token.
    ManagementTokenDelete,
    /// Back up and check the store.
    StoreBackup,
}

impl Action {
    /// All, in the order of their declaration.
    pub const ALL: [Self; 35] = [
        Self::WorkspaceRead,
        Self::WorkspaceWrite,
        Self::WorkspaceDelete,
        Self::ServiceRead,
        Self::AciWrite,
        Self::AciDelete,
        Self::AciListKeys,
        Self::AciRegenerateKeys,
        Self::AksWrite,
        Self::AksDelete,
        Self::AksListKeys,
        Self::AksRegenerateKeys,
        Self::EndpointRead,
        Self::EndpointWrite,
        Self::EndpointDelete,
        Self::EndpointListKeys,
        Self::EndpointRegenerateKeys,
        Self::EndpointToken,
        Self::Score,
        Self::ModelRead,
        Self::MetricsRead,
        Self::RecordsRead,
        Self::ActivityRead,
        Self::RoleAssignmentRead,
        Self::RoleAssignmentWrite,
        Self::RoleAssignmentDelete,
        Self::RoleDefinitionRead,
        Self::RoleDefinitionWrite,
        Self::RoleDefinitionDelete,
        Self::TokenRevoke,
        Self::SigningKeyRotate,
        Self::ManagementTokenRead,
        Self::ManagementTokenWrite,
        Self::ManagementTokenDelete,
        Self::StoreBackup,
    ];

    /// The string of role definitions and of the activity log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WorkspaceRead => "Microsoft.MachineLearningServices/workspaces/read",
            Self::WorkspaceWrite => "Microsoft.MachineLearningServices/workspaces/write",
            Self::WorkspaceDelete => "Microsoft.MachineLearningServices/workspaces/delete",
            Self::ServiceRead => "Microsoft.MachineLearningServices/workspaces/services/read",
            Self::AciWrite => "Microsoft.MachineLearningServices/workspaces/services/aci/write",
            Self::AciDelete => "Microsoft.MachineLearningServices/workspaces/services/aci/delete",
            Self::AciListKeys => "Microsoft.MachineLearningServices/workspaces/services/aci/listkeys/action",
            Self::AciRegenerateKeys => {
                "Microsoft.MachineLearningServices/workspaces/services/aci/regeneratekeys/action"
            }
            Self::AksWrite => "Microsoft.MachineLearningServices/workspaces/services/aks/write",
            Self::AksDelete => "Microsoft.MachineLearningServices/workspaces/services/aks/delete",
            Self::AksListKeys => "Microsoft.MachineLearningServices/workspaces/services/aks/listkeys/action",
            Self::AksRegenerateKeys => {
                "Microsoft.MachineLearningServices/workspaces/services/aks/regeneratekeys/action"
            }
            Self::EndpointRead => "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/read",
            Self::EndpointWrite => "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/write",
            Self::EndpointDelete => "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/delete",
            Self::EndpointListKeys => {
                "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/listKeys/action"
            }
            Self::EndpointRegenerateKeys => {
                "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/regenerateKeys/action"
            }
            Self::EndpointToken => {
                "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/token/action"
            }
            Self::Score => "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/score/action",
            Self::ModelRead => "Microsoft.MachineLearningServices/workspaces/models/read",
            Self::MetricsRead => "Microsoft.Insights/metrics/read",
            Self::RecordsRead => "Microsoft.Insights/Logs/Read",
            Self::ActivityRead => "Microsoft.Insights/eventtypes/values/read",
            Self::RoleAssignmentRead => "Microsoft.Authorization/roleAssignments/read",
            Self::RoleAssignmentWrite => "Microsoft.Authorization/roleAssignments/write",
            Self::RoleAssignmentDelete => "Microsoft.Authorization/roleAssignments/delete",
            Self::RoleDefinitionRead => "Microsoft.Authorization/roleDefinitions/read",
            Self::RoleDefinitionWrite => "Microsoft.Authorization/roleDefinitions/write",
            Self::RoleDefinitionDelete => "Microsoft.Authorization/roleDefinitions/delete",
            Self::TokenRevoke => "Scoregate/workspaces/tokens/revoke/action",
            Self::SigningKeyRotate => "Scoregate/workspaces/signingKeys/rotate/action",
            Self::ManagementTokenRead => "Scoregate/managementTokens/read",
            Self::ManagementTokenWrite => "Scoregate/managementTokens/write",
            Self::ManagementTokenDelete => "Scoregate/managementTokens/delete",
            Self::StoreBackup => "Scoregate/store/backup/action",
        }
    }

    const fn bit(self) -> u64 {
        1 << self as u8
    }

    /// Whether `pattern` covers this action: equal without regard to case, where each `*` stands for any text (Azure's
    /// rule for role definitions).
    fn is_covered_by(self, pattern: &str) -> bool {
        let text = self.as_str().to_ascii_lowercase();
        let pattern = pattern.to_ascii_lowercase();
        let mut parts = pattern.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let parts: Vec<_> = parts.collect();
        let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
        for part in middle {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Some actions.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ActionSet(u64);

impl ActionSet {
    /// No action.
    pub const NONE: Self = Self(0);

    /// What `patterns` allow minus what `except` covers (Azure's `actions` and `notActions`).
    ///
    /// # Errors
    /// The first pattern that covers no action known here: most likely a misspelling.
    pub fn of_patterns<'a>(patterns: &'a [String], except: &'a [String]) -> Result<Self, &'a str> {
        let covered = |patterns: &'a [String]| {
            let mut set = Self::NONE;
            for pattern in patterns {
                let covers: Self = Action::ALL.into_iter().filter(|it| it.is_covered_by(pattern)).collect();
                if covers == Self::NONE {
                    return Err(pattern.as_str());
                }
                set = set.and(covers);
            }
            Ok(set)
        };
        Ok(covered(patterns)?.without(covered(except)?))
    }

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set less `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether `action` is in it.
    #[must_use]
    pub const fn allows(self, action: Action) -> bool {
        self.0 & action.bit() != 0
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// The actions in it.
    pub fn iter(self) -> impl Iterator<Item = Action> {
        Action::ALL.into_iter().filter(move |action| self.allows(*action))
    }
}

impl FromIterator<Action> for ActionSet {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        Self(actions.into_iter().fold(0, |bits, action| bits | action.bit()))
    }
}

impl fmt::Debug for ActionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// A role that every gateway has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BuiltInRole {
    /// Everything.
    Owner,
    /// Everything but roles, management tokens and the store.
    Contributor,
    /// Sees, and may call services.
    Reader,
}

impl BuiltInRole {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Owner, Self::Contributor, Self::Reader];

    /// Its name, which no custom role may take.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "Owner",
            Self::Contributor => "Contributor",
            Self::Reader => "Reader",
        }
    }

    /// The role called `name`, without regard to case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str().eq_ignore_ascii_case(name))
    }

    /// What it allows.
    #[must_use]
    pub fn actions(self) -> ActionSet {
        let all: ActionSet = Action::ALL.into_iter().collect();
        match self {
            Self::Owner => all,
            Self::Contributor => all.without(ActionSet::from_iter([
                Action::RoleAssignmentWrite,
                Action::RoleAssignmentDelete,
                Action::RoleDefinitionWrite,
                Action::RoleDefinitionDelete,
                Action::ManagementTokenRead,
                Action::ManagementTokenWrite,
                Action::ManagementTokenDelete,
                Action::StoreBackup,
            ])),
            Self::Reader => ActionSet::from_iter([
                Action::WorkspaceRead,
                Action::ServiceRead,
                Action::EndpointRead,
                Action::Score,
                Action::ModelRead,
                Action::MetricsRead,
                Action::RecordsRead,
                Action::ActivityRead,
                Action::RoleAssignmentRead,
                Action::RoleDefinitionRead,
            ]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(patterns: &[&str], except: &[&str]) -> Result<ActionSet, String> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        ActionSet::of_patterns(&owned(patterns), &owned(except)).map_err(str::to_owned)
    }

    #[test]
    fn every_action_is_listed_once_and_spelled_once() {
        for (place, action) in Action::ALL.into_iter().enumerate() {
            assert_eq!(action as usize, place);
        }
        let spellings: std::collections::BTreeSet<_> =
            Action::ALL.into_iter().map(|action| action.as_str().to_lowercase()).collect();
        assert_eq!(spellings.len(), Action::ALL.len());
    }

    #[test]
    fn patterns_follow_azures_rule() {
        assert_eq!(set(&["*"], &[]), Ok(BuiltInRole::Owner.actions()));
        let keys = set(&["microsoft.machinelearningservices/workspaces/*/LISTKEYS/action"], &[]).unwrap();
        let expected = [Action::AciListKeys, Action::AksListKeys, Action::EndpointListKeys];
        assert_eq!(keys, ActionSet::from_iter(expected));
        let reads = set(&["*/read"], &["Scoregate/*"]).unwrap();
        assert!(reads.allows(Action::ServiceRead) && !reads.allows(Action::ManagementTokenRead));
        assert!(!reads.allows(Action::AksWrite));
        assert_eq!(set(&["*/raed"], &[]), Err("*/raed".into()));
        assert_eq!(set(&["*"], &["Microsoft.Storage/*"]), Err("Microsoft.Storage/*".into()));
    }

    #[test]
    fn a_smaller_role_is_covered_by_a_larger_one() {
        let [owner, contributor, reader] = BuiltInRole::ALL.map(BuiltInRole::actions);
        assert!(owner.covers(contributor) && contributor.covers(reader));
        assert!(!contributor.covers(owner) && !reader.covers(contributor));
    }
}
