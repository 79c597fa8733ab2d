//! The configuration as it is shown: what was understood of the file, its secrets masked.

use serde_json::Value;

const SECRET: &str = "<secret>";
/// Keys whose values nobody is shown, wherever they stand and however long they are. The file holds no keys but those
/// that are known, so no other can carry a secret.
const SECRETS: [&str; 4] = ["password", "credentials", "key", "headers"];

/// A file that was read well, without its secrets, as YAML.
///
/// # Errors
/// When it cannot be read or written.
pub(super) fn masked(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Ok(String::new());
    }
    let mut tree: Value =
        serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())?;
    mask(&mut tree);
    serde_saphyr::to_string(&tree).map_err(|error| error.to_string())
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::Null => {}
                    Value::Object(inner) if name == "headers" => {
                        inner.values_mut().for_each(|value| *value = SECRET.into());
                    }
                    _ if SECRETS.contains(&name.as_str()) => *value = SECRET.into(),
                    Value::String(url) if name.ends_with("url") => *url = without_password(url),
                    _ => mask(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(mask),
        _ => {}
    }
}

/// A URL without the password that may stand in it.
pub(super) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let Some(at) = rest[..authority].rfind('@') else { return url.to_owned() };
    let user = rest[..at].split(':').next().unwrap_or_default();
    format!("{scheme}://{user}:xxxxx{}", &rest[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown_however_it_is_written() {
        let text = r#"
global: {scrape_interval: 15s}
scrape_configs:
- job_name: a
  basic_auth: {username: u, password: hush1}
  tls_config:
    key: |
      -----BEGIN PRIVATE KEY-----
      hush2
      -----END PRIVATE KEY-----
    key_file: /etc/key.pem
- job_name: b
  authorization:
    "credentials": >-
      hush3
      hush4
  http_sd_configs: [{url: "https://user:hush5@host/list", authorization: {credentials: hush6}}]
remote_write:
- url: http://h/w
  headers: {X-Key: hush7, Other: "hush8"}
  authorization: &same {type: Bearer, credentials: hush9}
- url: http://i/w
  authorization: *same
"#;
        let shown = masked(text).expect("good");
        assert!(!shown.contains("hush") && !shown.contains("PRIVATE"), "{shown}");
        for kept in
            ["username: u", "/etc/key.pem", "https://user:xxxxx@host/list", "job_name: b", "15s", "X-Key"]
        {
            assert!(shown.contains(kept), "{kept}: {shown}");
        }
        assert_eq!(shown.matches(SECRET).count(), 8, "{shown}");
        serde_saphyr::from_str::<Value>(&shown).expect("YAML");
    }
}
