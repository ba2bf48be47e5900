//! Tags and descriptions, small secrets, and what the audit log says of a life.

use super::*;

#[test]
fn tags_and_description_change_while_the_key_is_not_pending_deletion() {
    let life = Life::new();
    let key = life.key();
    let tags = |pairs: &[(&str, &str)]| {
        let pairs = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Tags::new(pairs).unwrap()
    };
    life.service
        .tag_resource(&key, &tags(&[("a", "1"), ("b", "2")]))
        .unwrap();
    life.service
        .tag_resource(&key, &tags(&[("b", "3")]))
        .unwrap();
    life.service
        .untag_resource(&key, &["a".to_owned(), "z".to_owned()])
        .unwrap();
    assert_eq!(life.describe(&key).tags, tags(&[("b", "3")]));
    let many = Tags::new((0..50).map(|i| (i.to_string(), String::new()))).unwrap();
    let refused = life.service.tag_resource(&key, &many);
    assert!(matches!(
        refused,
        Err(KmsError::LimitExceededException { limit: 50, .. })
    ));
    let text = Description::new("new".to_owned()).unwrap();
    life.service.update_key_description(&key, &text).unwrap();
    assert_eq!(life.describe(&key).description, text);
    life.service.schedule_key_deletion(&key, days(7)).unwrap();
    for refused in [
        life.service.tag_resource(&key, &tags(&[("c", "")])),
        life.service.untag_resource(&key, &["b".to_owned()]),
        life.service.update_key_description(&key, &text),
    ] {
        assert_eq!(invalid(refused), InvalidState::PendingDeletion);
    }
}

#[test]
fn a_small_secret_opens_under_its_own_key_and_context_whatever_was_rotated_since() {
    let life = Life::new();
    let (key, other) = (life.key(), life.key());
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let context = TextContext([pair("a", "b")].into());
    let none = TextContext::default();
    let blob = life.service.encrypt(&key, b"secret", &context).unwrap();
    assert!(!blob.windows(6).any(|window| window == b"secret"));
    life.service.rotate_key_on_demand(&key).unwrap();
    let open = |key: Option<&KeyRef>, context| life.service.decrypt(key, &blob, context);
    assert_eq!(&**open(None, &context).unwrap(), b"secret");
    assert_eq!(&**open(Some(&key), &context).unwrap(), b"secret");
    assert!(matches!(
        open(Some(&other), &context),
        Err(KmsError::IncorrectKeyException { .. })
    ));
    assert!(matches!(
        open(None, &none),
        Err(KmsError::InvalidCiphertextException(_))
    ));
    let moved = life
        .service
        .re_encrypt(&blob, &context, &other, &none)
        .unwrap();
    let opened = life.service.decrypt(Some(&other), &moved, &none);
    assert_eq!(&**opened.unwrap(), b"secret");
    for length in [0, 4097] {
        let refused = life.service.encrypt(&key, &vec![1; length], &none);
        assert!(matches!(refused, Err(KmsError::ValidationException(_))));
    }
    let longest = life.service.encrypt(&key, &[1; 4096], &none).unwrap();
    assert_eq!(
        life.service.decrypt(None, &longest, &none).unwrap().len(),
        4096
    );
    let junk = life.service.decrypt(None, b"junk", &none);
    assert!(matches!(junk, Err(KmsError::InvalidCiphertextException(_))));
    life.service.disable_key(&key).unwrap();
    assert!(matches!(
        open(None, &context),
        Err(KmsError::DisabledException { .. })
    ));
    let refused = life.service.re_encrypt(&blob, &context, &other, &none);
    assert!(matches!(refused, Err(KmsError::DisabledException { .. })));
}

#[test]
fn what_time_brings_about_is_in_the_audit_log_once_each_and_as_nobodys_deed() {
    let life = Life::new();
    let (doomed, rotated, expiring) = (life.key(), life.key(), life.external());
    let before = done_by_itself(&life).len();
    life.service
        .schedule_key_deletion(&doomed, days(30))
        .unwrap();
    life.service
        .enable_key_rotation(&rotated, period(90))
        .unwrap();
    life.import_until(&expiring, 1, START.plus_days(20));
    life.days(100);
    life.another().run_due();
    life.service.run_due();
    let mut done = done_by_itself(&life).split_off(before);
    done.sort();
    let expected = [
        ("DeleteExpiredKeyMaterial", &expiring),
        ("DeleteKey", &doomed),
        ("RotateKey", &rotated),
    ];
    assert_eq!(
        done,
        expected.map(|(name, key)| (name.to_owned(), key.name()))
    );
    assert!(life.service.verify_audit().damage.is_none());
}

/// What no key material and no secret may ever do.
#[test]
fn neither_material_nor_secret_nor_ciphertext_is_in_the_audit_log() {
    let life = Life::new();
    let key = life.external();
    life.import(&key, 1).unwrap();
    let context = TextContext([("purpose".to_owned(), "shown".to_owned())].into());
    let secret = b"a secret that nobody may read";
    let stored = life.service.encrypt(&key, secret, &context).unwrap();
    life.service.decrypt(None, &stored, &context).unwrap();
    let log = std::fs::read(life.dir.path().join("audit/log")).unwrap();
    let holds = |bytes: &[u8]| log.windows(bytes.len()).any(|window| window == bytes);
    assert!(holds(b"shown") && holds(b"ImportKeyMaterial"));
    assert!(!holds(secret));
    assert!(!holds(&stored[72..]));
    assert!(!holds(material(1).secret().expose()));
}

#[test]
fn an_encryption_context_has_at_most_8192_bytes() {
    let life = Life::new();
    let key = life.key();
    let of = |bytes: usize| TextContext([("name".to_owned(), "v".repeat(bytes - 4))].into());
    let stored = life.service.encrypt(&key, b"secret", &of(8192)).unwrap();
    life.service.decrypt(None, &stored, &of(8192)).unwrap();
    let long = of(8193);
    for refused in [
        life.service.encrypt(&key, b"secret", &long).map(drop),
        life.service.decrypt(None, &stored, &long).map(drop),
        life.service
            .re_encrypt(&stored, &of(8192), &key, &long)
            .map(drop),
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, KmsError::ValidationException(_)), "{error}");
    }
    let log = std::fs::read_to_string(life.dir.path().join("audit/log")).unwrap();
    let last = log.lines().rev().nth(1).unwrap();
    assert!(last.len() < 2000, "what is refused does not fill the log");
}
