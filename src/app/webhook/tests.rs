use super::*;
use crate::app::self_test;

fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_paths_of_the_settings_are_registered() {
    let secret = std::env::temp_dir().join(format!("quickio-webhook-{}", std::process::id()));
    std::fs::write(&secret, "0123456789abcdef\n").unwrap();
    let file = secret.to_str().unwrap();
    let app = |paths: &str| {
        let url = ("url", "http://127.0.0.1:1/");
        Webhook::new(&settings(&[url, ("secret-file", file), ("paths", paths)]), &[])
    };
    assert!(self_test(&app("/chat, /game").unwrap()).is_ok());
    assert!(self_test(&app("/qio").unwrap()).is_err(), "it is the namespace of the server");
    assert!(self_test(&app("/a,/a").unwrap()).is_err(), "it appears twice");
    assert!(app("chat").is_err());
    assert!(app("/chat").unwrap().authenticator().is_none());
    // Paths are needed only for events that have one.
    let with = |events| {
        let url = ("url", "http://127.0.0.1:1/");
        Webhook::new(&settings(&[url, ("secret-file", file), ("events", events)]), &[])
    };
    assert_eq!(with("connect, gone").unwrap().authenticator().unwrap().credential_headers(), ["cookie"]);
    assert!(with("connect, on").err().unwrap().to_string().contains("needs the setting `paths`"));
    std::fs::remove_file(&secret).unwrap();
}
