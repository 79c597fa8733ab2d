//! From a question to a decision, rule by rule.

use std::sync::Arc;

use super::{BlockLists, SubscriberRules, Table, Target, TenantEntry};
use crate::decision::{Caller, Decision, Explain, Local, Outcome, Question, Reason, Refusal};
use crate::number::{DialPlan, Dialled, Number, bare_digits};
use crate::plan::Outside;

/// Who asks, looked up.
struct Asking<'t> {
    /// Whose rules count for what is dialled.
    tenant: &'t TenantEntry,
    dial: &'t DialPlan,
    rules: Option<&'t SubscriberRules>,
    number: Option<Number>,
}

/// Where a call would go if nothing speaks against it.
enum Aim {
    Local(Local, Option<Number>),
    Outside(Number),
    Refused(Reason),
}

impl Table {
    /// Whether what is dialled is an emergency number. Quick: asked of every call before anything else.
    #[must_use]
    pub fn is_emergency(&self, user: &str, caller_domain: Option<&str>) -> bool {
        // A leading + is never part of one.
        let digits = match user.as_bytes().first() {
            Some(b'0'..=b'9') if user.len() <= 16 => user,
            _ => return false,
        };
        let tenant = caller_domain.map_or_else(|| &self.tenants[0], |domain| self.tenant_of(domain));
        self.emergency_digits(digits, tenant).is_some()
    }

    /// Who may call whom, by which way.
    pub fn decide(&self, question: &Question<'_>, explain: &mut impl Explain) -> Decision {
        let asking = self.asking(question, explain);
        let bare = bare_digits(question.user);
        let emergency = match &bare {
            _ if question.is_emergency_urn => Some("112"),
            Some(bare) => self.emergency_digits(bare, asking.tenant),
            None => None,
        };
        if let Some(digits) = emergency {
            return self.emergency_decision(question, &asking, digits, explain);
        }
        let aim = self.aim(question, &asking, bare.as_deref(), explain);
        let (target, called) = match &aim {
            Aim::Local(local, called) => (Some(self.tenant_of(&local.domain)), *called),
            Aim::Outside(number) => (None, Some(*number)),
            Aim::Refused(_) => (None, None),
        };
        let is_trunk = matches!(question.caller, Caller::Trunk { .. });
        let payer = target.filter(|_| is_trunk).unwrap_or(asking.tenant);
        let outcome = match aim {
            Aim::Refused(reason) => refused(reason),
            _ if let Some(reason) = self.blocked(&asking, target, called, explain) => refused(reason),
            Aim::Local(local, _) => Outcome::Local(local),
            Aim::Outside(number) => self.outside(question, &asking, &number, explain),
        };
        explain.step("decision", || shown(&outcome));
        let tenant = Arc::clone(&payer.name);
        Decision { outcome, tenant, is_emergency: false, called, caller: asking.number }
    }

    fn asking(&self, question: &Question<'_>, explain: &mut impl Explain) -> Asking<'_> {
        match question.caller {
            Caller::Subscriber { user, domain } => {
                let tenant = self.tenant_of(domain);
                let rules = self.rules_of(user, domain);
                let number = self.number_of(user, domain, tenant, rules);
                explain.step("caller", || {
                    let shown = number.map_or_else(|| "no number".to_owned(), |number| number.to_string());
                    format!("{user}@{domain} of tenant {}; {shown}", tenant.name)
                });
                Asking { tenant, dial: &tenant.dial, rules, number }
            }
            Caller::Trunk { trunk, claimed } => {
                let entry = self.trunk(trunk);
                let tenant = &self.tenants[0];
                let dial = entry.map_or(&tenant.dial, |entry| &entry.dial);
                let number =
                    claimed.and_then(bare_digits).and_then(|bare| match dial.understand(&bare, None) {
                        Dialled::Number(number) => Some(number),
                        Dialled::User | Dialled::Invalid => None,
                    });
                explain.step("caller", || {
                    let name = entry.map_or("unknown", |entry| &*entry.name);
                    let shown = number.map_or_else(|| "no number".to_owned(), |number| number.to_string());
                    format!("trunk {name}; {shown}")
                });
                Asking { tenant, dial, rules: None, number }
            }
        }
    }

    /// The number that a subscriber is known by outside.
    fn number_of(
        &self,
        user: &str,
        domain: &str,
        tenant: &TenantEntry,
        rules: Option<&SubscriberRules>,
    ) -> Option<Number> {
        if let Some(number) = rules.and_then(|rules| rules.number) {
            return Some(number);
        }
        if !self.numbers.is_empty()
            && let Some(number) = self.numbers.get(format!("{user}@{domain}").as_str())
        {
            return Some(*number);
        }
        let own = bare_digits(user).map(|bare| tenant.dial.understand(&bare, None));
        match own {
            Some(Dialled::Number(number)) => Some(number),
            _ => tenant.caller_number,
        }
    }

    /// The emergency number in what was dialled, a line to the outside first or not.
    fn emergency_digits<'t>(&'t self, bare: &str, tenant: &'t TenantEntry) -> Option<&'t str> {
        let outside = bare.strip_prefix(&*tenant.dial.outside_prefix).unwrap_or(bare);
        let mut all = self.emergency.numbers.iter().chain(&tenant.emergency_numbers).map(|number| &**number);
        all.find(|number| *number == bare || *number == outside)
    }

    fn emergency_decision(
        &self,
        question: &Question<'_>,
        asking: &Asking<'_>,
        digits: &str,
        explain: &mut impl Explain,
    ) -> Decision {
        explain.step("emergency", || format!("{digits} passes before every limit, block and overload"));
        let place = asking.rules.and_then(|rules| rules.location).or(asking.tenant.location);
        let location = place.and_then(|place| self.emergency.locations.get(usize::from(place)));
        explain.step("location", || match location {
            Some(location) => {
                format!("{}: {} is called", location.name, location.number.as_deref().unwrap_or(digits))
            }
            None => "none is configured for this caller".to_owned(),
        });
        let dialled = location.and_then(|location| location.number.as_deref()).unwrap_or(digits);
        let own = location.map(|location| location.trunks.as_slice()).filter(|trunks| !trunks.is_empty());
        let trunks = own.unwrap_or(&self.emergency.trunks);
        let hops = self.emergency_hops(question, dialled, asking.number.as_ref(), trunks, explain);
        let outcome = if hops.is_empty() {
            // Somebody may take these calls here; it is for the location service to say.
            let domain = match question.caller {
                Caller::Subscriber { domain, .. } => domain,
                Caller::Trunk { .. } => question.domain,
            };
            Outcome::Local(Local { user: dialled.to_owned(), domain: domain.to_owned() })
        } else {
            Outcome::Trunks(hops)
        };
        explain.step("decision", || shown(&outcome));
        let tenant = Arc::clone(&asking.tenant.name);
        Decision { outcome, tenant, is_emergency: true, called: None, caller: asking.number }
    }

    /// What the dialled text means.
    fn aim(
        &self,
        question: &Question<'_>,
        asking: &Asking<'_>,
        bare: Option<&str>,
        explain: &mut impl Explain,
    ) -> Aim {
        let is_trunk = matches!(question.caller, Caller::Trunk { .. });
        let domain =
            if question.is_telephone && !is_trunk { &*asking.tenant.domain } else { question.domain };
        let tenant =
            if question.is_telephone && !is_trunk { asking.tenant } else { self.tenant_of(question.domain) };
        if let Some(target) = tenant.aliases.get(bare.unwrap_or(question.user)) {
            explain.step("alias", || format!("tenant {} calls {} so", tenant.name, whom(target)));
            return Aim::Local(local(target), None);
        }
        let Some(bare) = bare else {
            if question.is_telephone {
                explain.step("number", || "meant as a number, and none".to_owned());
                return Aim::Refused(Reason::NumberInvalid);
            }
            explain.step("number", || "a name, not a number".to_owned());
            return Aim::Local(Local { user: question.user.to_owned(), domain: domain.to_owned() }, None);
        };
        match asking.dial.understand(bare, question.context) {
            Dialled::Invalid => {
                explain.step("number", || "meant as a number, and none of the world's".to_owned());
                Aim::Refused(Reason::NumberInvalid)
            }
            Dialled::User => {
                explain.step("number", || format!("no number by the dial plan: a user of {domain}"));
                Aim::Local(Local { user: bare.to_owned(), domain: domain.to_owned() }, None)
            }
            Dialled::Number(number) => {
                explain.step("number", || format!("{number}, country code {}", number.country_code()));
                self.aim_at_number(question, domain, number, explain)
            }
        }
    }

    fn aim_at_number(
        &self,
        question: &Question<'_>,
        domain: &str,
        number: Number,
        explain: &mut impl Explain,
    ) -> Aim {
        if let Some(target) = self.aliases.get(&number) {
            explain.step("alias", || format!("{number} is {}", whom(target)));
            return Aim::Local(local(target), Some(number));
        }
        if let Some((length, place)) = self.own.longest(number.digits()) {
            let tenant = &self.tenants[usize::from(*place)];
            let user = tenant.own_format.write(&number, &tenant.dial);
            explain.step("own prefix", || {
                format!(
                    "+{} is tenant {}'s: {user}@{}",
                    &number.digits()[..length],
                    tenant.name,
                    tenant.domain
                )
            });
            return Aim::Local(Local { user, domain: tenant.domain.to_string() }, Some(number));
        }
        if self.trunks.is_empty() {
            explain.step("trunks", || format!("none are configured: a user of {domain}"));
            let local = Local { user: question.user.to_owned(), domain: domain.to_owned() };
            return Aim::Local(local, Some(number));
        }
        explain.step("alias", || "none: a number outside".to_owned());
        Aim::Outside(number)
    }

    fn blocked(
        &self,
        asking: &Asking<'_>,
        target: Option<&TenantEntry>,
        called: Option<Number>,
        explain: &mut impl Explain,
    ) -> Option<Reason> {
        let (caller, is) = (asking.number, is_blocked);
        let own = &asking.tenant.blocks;
        let reason = if is(&self.blocks, Side::Called, called) {
            Some(Reason::CalledBlocked)
        } else if is(&self.blocks, Side::Caller, caller) {
            Some(Reason::CallerBlocked)
        } else if is(own, Side::Called, called) {
            Some(Reason::CalledBlockedByTenant)
        } else if is(own, Side::Caller, caller) || target.is_some_and(|t| is(&t.blocks, Side::Caller, caller))
        {
            Some(Reason::CallerBlockedByTenant)
        } else {
            None
        };
        explain.step("blocks", || reason.map_or("nothing is blocked", Reason::text).to_owned());
        reason
    }

    fn outside(
        &self,
        question: &Question<'_>,
        asking: &Asking<'_>,
        number: &Number,
        explain: &mut impl Explain,
    ) -> Outcome {
        let from = match question.caller {
            Caller::Trunk { trunk, .. } => {
                let is_transit = self.trunk(trunk).is_some_and(|entry| entry.is_transit);
                explain.step("transit", || {
                    if is_transit { "the trunk may call outside" } else { "the trunk may not call outside" }
                        .to_owned()
                });
                if !is_transit {
                    return refused(Reason::NumberUnknown);
                }
                Some(trunk)
            }
            Caller::Subscriber { .. } => {
                let outside = asking.rules.and_then(|rules| rules.outside).unwrap_or(asking.tenant.outside);
                let is_home = number.country_code() == asking.tenant.dial.country_code;
                let may = match outside {
                    Outside::All => true,
                    Outside::National => is_home,
                    Outside::None => false,
                };
                explain.step("outside", || {
                    let allowed = match outside {
                        Outside::All => "every number",
                        Outside::National => "numbers of its own country only",
                        Outside::None => "no number outside",
                    };
                    format!("the caller may call {allowed}")
                });
                if !may {
                    return refused(Reason::Barred);
                }
                None
            }
        };
        let hops = self.hops(question, asking.tenant, number, asking.number.as_ref(), from, explain);
        if hops.is_empty() { refused(Reason::NoTrunk) } else { Outcome::Trunks(hops) }
    }
}

#[derive(Clone, Copy)]
enum Side {
    Caller,
    Called,
}

fn is_blocked(lists: &BlockLists, side: Side, number: Option<Number>) -> bool {
    let list = match side {
        Side::Caller => &lists.caller,
        Side::Called => &lists.called,
    };
    number.is_some_and(|number| list.longest(number.digits()).is_some_and(|(_, is_blocked)| *is_blocked))
}

fn local(target: &Target) -> Local {
    Local { user: target.user.to_string(), domain: target.domain.to_string() }
}

fn whom(target: &Target) -> String {
    format!("{}@{}", target.user, target.domain)
}

fn refused(reason: Reason) -> Outcome {
    Outcome::Refused(Refusal { reason })
}

fn shown(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Local(local) => format!("local: {}@{}", local.user, local.domain),
        Outcome::Trunks(hops) => format!("{} ways over trunks", hops.len()),
        Outcome::Refused(refusal) => format!("refused {}: {}", refusal.status(), refusal.reason.text()),
    }
}
