//! Receivers: PagerDuty, Slack and webhooks, with the fields that Alertmanager gives them.

use std::collections::BTreeMap;
use std::fmt;

use belfry_ruler::Template;
use belfry_ruler::yaml::Collector;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;

/// The texts that Alertmanager's files take for granted.
const LIBRARY: &str = "{{ define \"__subject\" }}[{{ .Status | toUpper }}{{ if eq .Status \"firing\" }}:{{ .Alerts.Firing | len }}{{ end }}] \
{{ .GroupLabels.Values | join \" \" }}{{ if gt (len .CommonLabels) (len .GroupLabels) }} ({{ .CommonLabels.Values | join \" \" }}){{ end }}{{ end }}\
{{ define \"pagerduty.default.description\" }}{{ template \"__subject\" . }}{{ end }}\
{{ define \"pagerduty.default.client\" }}Belfry{{ end }}\
{{ define \"pagerduty.default.clientURL\" }}{{ .ExternalURL }}{{ end }}\
{{ define \"__text_alert_list\" }}{{ range .Alerts }}{{ range .Labels.SortedPairs }}{{ .Name }}={{ .Value }} {{ end }}\n{{ end }}{{ end }}\
{{ define \"slack.default.title\" }}{{ template \"__subject\" . }}{{ end }}\
{{ define \"slack.default.username\" }}Belfry{{ end }}\
{{ define \"slack.default.titlelink\" }}{{ .ExternalURL }}{{ end }}\
{{ define \"slack.default.fallback\" }}{{ template \"slack.default.title\" . }} | {{ template \"slack.default.titlelink\" . }}{{ end }}\
{{ define \"slack.default.pretext\" }}{{ end }}{{ define \"slack.default.text\" }}{{ end }}{{ define \"slack.default.footer\" }}{{ end }}\
{{ define \"pagerduty.default.instances\" }}{{ template \"__text_alert_list\" . }}{{ end }}";

/// Somebody to be told, in one or several ways.
#[derive(Clone, Debug, PartialEq)]
pub struct Receiver {
    /// Its name.
    pub name: String,
    /// The ways.
    pub integrations: Vec<Integration>,
}

/// One way to tell somebody.
#[derive(Clone, Debug, PartialEq)]
pub struct Integration {
    /// What it is called everywhere: receiver, kind and place.
    pub target: String,
    /// Whether it wants to know when it is over.
    pub send_resolved: bool,
    /// Which way.
    pub kind: IntegrationKind,
}

/// The ways that there are.
#[derive(Clone, Debug, PartialEq)]
pub enum IntegrationKind {
    /// PagerDuty's Events API v2.
    Pagerduty(Box<Pagerduty>),
    /// A POST of JSON in Alertmanager's shape.
    Webhook(Webhook),
    /// A POST of JSON as Slack's incoming webhooks take it, and others that speak like it.
    Slack(Box<Slack>),
    /// A service of our own configuration; `None` for all of them.
    Service(Option<String>),
}

/// A secret: from the file itself, or from a file that it names.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// As it stands in the file.
    Inline(String),
    /// The path of the file that holds it.
    File(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Inline(_) => f.write_str("[secret]"),
            Secret::File(path) => write!(f, "file {path}"),
        }
    }
}

/// A PagerDuty service. Texts are templates.
#[derive(Clone, Debug, PartialEq)]
pub struct Pagerduty {
    /// Where events go.
    pub url: String,
    /// Which service.
    pub routing_key: Secret,
    /// `description`, `severity`, `class`, `component`, `group`, `client`, `client_url`, and others as `details.NAME`.
    pub texts: Vec<(String, Template)>,
}

/// A channel of Slack, or of what takes the same messages. Texts are templates.
#[derive(Clone, Debug, PartialEq)]
pub struct Slack {
    /// The address of the incoming webhook: a secret in itself.
    pub url: Secret,
    /// `channel`, `username`, `color`, `title`, `title_link`, `pretext`, `text`, `fallback`, `footer`, `icon_emoji`,
    /// `icon_url`.
    pub texts: Vec<(String, Template)>,
}

/// A web address that is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// The address, which often is a secret in itself.
    pub url: Secret,
    /// At most so many alerts; 0 is any number.
    pub max_alerts: usize,
    /// How we say who we are.
    pub authorization: Option<Authorization>,
}

/// How a request says who it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// `Authorization: TYPE SECRET`.
    Scheme(String, Secret),
    /// User and password.
    Basic(String, Secret),
}

pub(super) struct Global<'a> {
    pub(super) pagerduty_url: Option<&'a str>,
    pub(super) slack_url: Option<Secret>,
    pub(super) http: Option<&'a HttpText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReceiverText {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pagerduty_configs: Vec<Spanned<PagerdutyText>>,
    #[serde(default)]
    webhook_configs: Vec<Spanned<WebhookText>>,
    #[serde(default)]
    service_configs: Vec<ServiceText>,
    email_configs: Option<Spanned<IgnoredAny>>,
    #[serde(default)]
    slack_configs: Vec<Spanned<SlackText>>,
    opsgenie_configs: Option<Spanned<IgnoredAny>>,
    victorops_configs: Option<Spanned<IgnoredAny>>,
    pushover_configs: Option<Spanned<IgnoredAny>>,
    wechat_configs: Option<Spanned<IgnoredAny>>,
    sns_configs: Option<Spanned<IgnoredAny>>,
    telegram_configs: Option<Spanned<IgnoredAny>>,
    webex_configs: Option<Spanned<IgnoredAny>>,
    discord_configs: Option<Spanned<IgnoredAny>>,
    msteams_configs: Option<Spanned<IgnoredAny>>,
    jira_configs: Option<Spanned<IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceText {
    service: Option<String>,
    #[serde(default = "yes")]
    send_resolved: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PagerdutyText {
    #[serde(default = "yes")]
    send_resolved: bool,
    routing_key: Option<Spanned<String>>,
    routing_key_file: Option<Spanned<String>>,
    service_key: Option<Spanned<IgnoredAny>>,
    service_key_file: Option<Spanned<IgnoredAny>>,
    url: Option<Spanned<String>>,
    client: Option<Spanned<String>>,
    client_url: Option<Spanned<String>>,
    description: Option<Spanned<String>>,
    severity: Option<Spanned<String>>,
    class: Option<Spanned<String>>,
    component: Option<Spanned<String>>,
    group: Option<Spanned<String>>,
    #[serde(default)]
    details: BTreeMap<String, Spanned<String>>,
    images: Option<Spanned<IgnoredAny>>,
    links: Option<Spanned<IgnoredAny>>,
    source: Option<Spanned<IgnoredAny>>,
    http_config: Option<Spanned<HttpText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SlackText {
    /// Chats hear of ends when they ask for it, as in Alertmanager.
    #[serde(default)]
    send_resolved: bool,
    api_url: Option<Spanned<String>>,
    api_url_file: Option<Spanned<String>>,
    channel: Option<Spanned<String>>,
    username: Option<Spanned<String>>,
    color: Option<Spanned<String>>,
    title: Option<Spanned<String>>,
    title_link: Option<Spanned<String>>,
    pretext: Option<Spanned<String>>,
    text: Option<Spanned<String>>,
    fallback: Option<Spanned<String>>,
    footer: Option<Spanned<String>>,
    icon_emoji: Option<Spanned<String>>,
    icon_url: Option<Spanned<String>>,
    fields: Option<Spanned<IgnoredAny>>,
    actions: Option<Spanned<IgnoredAny>>,
    callback_id: Option<Spanned<IgnoredAny>>,
    image_url: Option<Spanned<IgnoredAny>>,
    thumb_url: Option<Spanned<IgnoredAny>>,
    #[serde(rename = "short_fields")]
    _short_fields: Option<IgnoredAny>,
    #[serde(rename = "mrkdwn_in")]
    _mrkdwn_in: Option<IgnoredAny>,
    #[serde(rename = "link_names")]
    _link_names: Option<IgnoredAny>,
    http_config: Option<Spanned<HttpText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookText {
    #[serde(default = "yes")]
    send_resolved: bool,
    url: Option<Spanned<String>>,
    url_file: Option<Spanned<String>>,
    #[serde(default)]
    max_alerts: usize,
    http_config: Option<Spanned<HttpText>>,
    timeout: Option<IgnoredAny>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpText {
    authorization: Option<AuthorizationText>,
    basic_auth: Option<BasicText>,
    bearer_token: Option<String>,
    bearer_token_file: Option<String>,
    #[serde(default, rename = "follow_redirects")]
    _follow_redirects: Option<bool>,
    #[serde(default, rename = "enable_http2")]
    _enable_http2: Option<bool>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthorizationText {
    #[serde(rename = "type")]
    type_: Option<String>,
    credentials: Option<String>,
    credentials_file: Option<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct BasicText {
    username: String,
    password: Option<String>,
    password_file: Option<String>,
}

fn yes() -> bool {
    true
}

impl ReceiverText {
    pub(super) fn read(&self, global: &Global<'_>, faults: &mut Collector) -> Receiver {
        for (kind, place) in [
            ("email_configs", &self.email_configs),
            ("opsgenie_configs", &self.opsgenie_configs),
            ("victorops_configs", &self.victorops_configs),
            ("pushover_configs", &self.pushover_configs),
            ("wechat_configs", &self.wechat_configs),
            ("sns_configs", &self.sns_configs),
            ("telegram_configs", &self.telegram_configs),
            ("webex_configs", &self.webex_configs),
            ("discord_configs", &self.discord_configs),
            ("msteams_configs", &self.msteams_configs),
            ("jira_configs", &self.jira_configs),
        ] {
            if let Some(place) = place {
                let message = format!(
                    "{kind} of receiver {:?} is not supported: Belfry tells pagerduty_configs, slack_configs and webhook_configs",
                    self.name.value
                );
                faults.on(place, message);
            }
        }
        let name = &self.name.value;
        let mut integrations = Vec::new();
        for (at, text) in self.pagerduty_configs.iter().enumerate() {
            let kind = pagerduty(text, global, faults).map(|kind| IntegrationKind::Pagerduty(Box::new(kind)));
            let (target, send_resolved) = (format!("{name}/pagerduty/{at}"), text.value.send_resolved);
            integrations.extend(kind.map(|kind| Integration { target, send_resolved, kind }));
        }
        for (at, text) in self.webhook_configs.iter().enumerate() {
            let kind = webhook(text, global, faults).map(IntegrationKind::Webhook);
            let (target, send_resolved) = (format!("{name}/webhook/{at}"), text.value.send_resolved);
            integrations.extend(kind.map(|kind| Integration { target, send_resolved, kind }));
        }
        for (at, text) in self.slack_configs.iter().enumerate() {
            let kind = slack(text, global, faults).map(|slack| IntegrationKind::Slack(Box::new(slack)));
            let (target, send_resolved) = (format!("{name}/slack/{at}"), text.value.send_resolved);
            integrations.extend(kind.map(|kind| Integration { target, send_resolved, kind }));
        }
        for (at, text) in self.service_configs.iter().enumerate() {
            integrations.push(Integration {
                target: format!("{name}/service/{at}"),
                send_resolved: text.send_resolved,
                kind: IntegrationKind::Service(text.service.clone()),
            });
        }
        Receiver { name: name.clone(), integrations }
    }
}

fn pagerduty(
    text: &Spanned<PagerdutyText>,
    global: &Global<'_>,
    faults: &mut Collector,
) -> Option<Pagerduty> {
    let read = &text.value;
    for (key, place) in [("service_key", &read.service_key), ("service_key_file", &read.service_key_file)] {
        if let Some(place) = place {
            faults
                .on(place, format!("{key} is of the Events API v1, which is not spoken: make a routing_key"));
        }
    }
    for (key, place) in [("images", &read.images), ("links", &read.links), ("source", &read.source)] {
        if let Some(place) = place {
            faults.on(place, format!("{key} is not supported"));
        }
    }
    if let Some(http) = &read.http_config
        && (http.value.authorization.is_some() || http.value.basic_auth.is_some())
    {
        faults.on(http, "PagerDuty is told by its routing key, not by a login");
    }
    let Some(routing_key) = secret(&read.routing_key, &read.routing_key_file) else {
        faults.on(text, "set either routing_key or routing_key_file");
        return None;
    };
    let url = read.url.as_ref().map(|url| url.value.as_str()).or(global.pagerduty_url);
    let default = |text: &str| Some(text.to_owned());
    let fields = [
        ("description", &read.description, default("{{ template \"pagerduty.default.description\" . }}")),
        ("severity", &read.severity, default("error")),
        ("client", &read.client, default("Belfry")),
        ("client_url", &read.client_url, default("{{ .ExternalURL }}")),
        ("class", &read.class, None),
        ("component", &read.component, None),
        ("group", &read.group, None),
    ];
    let mut texts = Vec::new();
    for (name, given, default) in fields {
        let Some(written) = given.as_ref().map(|given| given.value.clone()).or(default) else { continue };
        texts.extend(template(name, &written, given.as_ref(), text, faults));
    }
    for (name, given) in &read.details {
        match Template::parse_with(&given.value, &[], &[LIBRARY]) {
            Ok(template) => texts.push((format!("details.{name}"), template)),
            Err(error) => faults.on(given, error),
        }
    }
    Some(Pagerduty {
        url: url.unwrap_or("https://events.pagerduty.com/v2/enqueue").to_owned(),
        routing_key,
        texts,
    })
}

/// A text of a receiver, as a template. A mistake is shown where it was written, or where it was left out.
fn template<T>(
    name: &str,
    written: &str,
    given: Option<&Spanned<String>>,
    whole: &Spanned<T>,
    faults: &mut Collector,
) -> Option<(String, Template)> {
    match Template::parse_with(written, &[], &[LIBRARY]) {
        Ok(template) => Some((name.to_owned(), template)),
        Err(error) => {
            let place = Spanned::new(String::new(), whole.referenced, whole.defined);
            faults.on(given.unwrap_or(&place), error);
            None
        }
    }
}

fn slack(text: &Spanned<SlackText>, global: &Global<'_>, faults: &mut Collector) -> Option<Slack> {
    let read = &text.value;
    for (key, place) in [
        ("fields", &read.fields),
        ("actions", &read.actions),
        ("callback_id", &read.callback_id),
        ("image_url", &read.image_url),
        ("thumb_url", &read.thumb_url),
    ] {
        if let Some(place) = place {
            faults.on(place, format!("{key} is not supported: say it in text, title or title_link"));
        }
    }
    if let Some(http) = &read.http_config
        && (http.value.authorization.is_some() || http.value.basic_auth.is_some())
    {
        faults.on(http, "an incoming webhook is told by its address, not by a login");
    }
    let Some(url) = secret(&read.api_url, &read.api_url_file).or_else(|| global.slack_url.clone()) else {
        faults.on(text, "set either api_url or api_url_file, here or as slack_api_url in global");
        return None;
    };
    if let Secret::Inline(url) = &url
        && !(url.starts_with("http://") || url.starts_with("https://"))
    {
        faults.on(text, "api_url must begin with http:// or https://");
    }
    let fields = [
        ("channel", &read.channel, ""),
        ("username", &read.username, "{{ template \"slack.default.username\" . }}"),
        ("color", &read.color, "{{ if eq .Status \"firing\" }}danger{{ else }}good{{ end }}"),
        ("title", &read.title, "{{ template \"slack.default.title\" . }}"),
        ("title_link", &read.title_link, "{{ template \"slack.default.titlelink\" . }}"),
        ("pretext", &read.pretext, ""),
        ("text", &read.text, "{{ range .Alerts }}{{ .Annotations.summary }}\n{{ end }}"),
        ("fallback", &read.fallback, "{{ template \"slack.default.fallback\" . }}"),
        ("footer", &read.footer, ""),
        ("icon_emoji", &read.icon_emoji, ""),
        ("icon_url", &read.icon_url, ""),
    ];
    let texts = fields.into_iter().filter_map(|(name, given, default)| {
        let written = given.as_ref().map_or(default, |given| given.value.as_str());
        if written.is_empty() {
            return None;
        }
        template(name, written, given.as_ref(), text, faults)
    });
    let texts = texts.collect();
    Some(Slack { url, texts })
}

fn webhook(text: &Spanned<WebhookText>, global: &Global<'_>, faults: &mut Collector) -> Option<Webhook> {
    let read = &text.value;
    let _read_over = read.timeout;
    let Some(url) = secret(&read.url, &read.url_file) else {
        faults.on(text, "set either url or url_file");
        return None;
    };
    if let Secret::Inline(url) = &url
        && !(url.starts_with("http://") || url.starts_with("https://"))
    {
        faults.on(text, "url must begin with http:// or https://");
    }
    let http = read.http_config.as_ref().map(|http| &http.value).or(global.http);
    let authorization = http.and_then(|http| {
        let either = |inline: &Option<String>, file: &Option<String>| {
            inline.clone().map(Secret::Inline).or_else(|| file.clone().map(Secret::File))
        };
        let scheme = http.authorization.as_ref().and_then(|given| {
            let secret = either(&given.credentials, &given.credentials_file)?;
            Some(Authorization::Scheme(given.type_.clone().unwrap_or_else(|| "Bearer".to_owned()), secret))
        });
        let bearer = || either(&http.bearer_token, &http.bearer_token_file);
        let basic = http.basic_auth.as_ref().and_then(|given| {
            Some(Authorization::Basic(given.username.clone(), either(&given.password, &given.password_file)?))
        });
        scheme.or_else(|| bearer().map(|secret| Authorization::Scheme("Bearer".to_owned(), secret))).or(basic)
    });
    Some(Webhook { url, max_alerts: read.max_alerts, authorization })
}

pub(super) fn secret(inline: &Option<Spanned<String>>, file: &Option<Spanned<String>>) -> Option<Secret> {
    match (inline, file) {
        (Some(inline), None) => Some(Secret::Inline(inline.value.clone())),
        (None, Some(file)) => Some(Secret::File(file.value.clone())),
        _ => None,
    }
}
