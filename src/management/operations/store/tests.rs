//! Copies land in the folder, with both events; reading checks leave none.

use super::super::fixtures::{Gateway, holder, settings};
use super::super::{ActivityStatus, fixtures};
use super::*;
use crate::catalog::BuiltInRole;

#[test]
fn copies_have_a_name_of_their_own_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut with = settings();
    with.backup_folder = Some(folder.path().to_owned());
    let gateway = Gateway::with(with);
    let owner = holder(BuiltInRole::Owner);
    let path = gateway.operations.backup(&owner).unwrap();
    assert_eq!(path.parent(), Some(folder.path()));
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("backup-20") && name.ends_with("Z.redb") && !name.contains(':'), "{name}");
    assert!(path.exists());
    assert_eq!(gateway.statuses(), [ActivityStatus::Started, ActivityStatus::Succeeded]);
    assert!(gateway.operations.check_store(&owner).is_ok());
    assert_eq!(gateway.statuses().len(), 2);
}

#[test]
fn a_store_without_a_folder_says_so() {
    let gateway = Gateway::new();
    let refusal = gateway.operations.backup(&holder(BuiltInRole::Owner)).unwrap_err();
    assert_eq!(refusal.cause, Cause::Conflict);
    assert_eq!(gateway.statuses(), [ActivityStatus::Started, ActivityStatus::Failed]);
}

#[test]
fn only_owners_of_the_gateway_copy_and_check() {
    let gateway = Gateway::new();
    for caller in
        [holder(BuiltInRole::Contributor), fixtures::holder_in(fixtures::DECLARED, BuiltInRole::Owner)]
    {
        let forbidden = Cause::Forbidden(Action::StoreBackup);
        assert_eq!(gateway.operations.backup(&caller).unwrap_err().cause, forbidden);
        assert_eq!(gateway.operations.check_store(&caller).unwrap_err().cause, forbidden);
    }
    assert!(gateway.operations.is_ready().is_ok());
}
