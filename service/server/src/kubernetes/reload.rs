//! What a reload may change of a cluster's realm while its socket is open.

use chancery_policy::PolicyDocument;

use super::Settings;
use crate::config::Config;

/// Whether the open socket can serve what a reload brings: its settings are those of the start.
///
/// # Errors
/// A sentence for the operator.
pub fn check(running: Option<&Settings>, next: &Config) -> Result<(), String> {
    let Some(running) = running else { return Ok(()) };
    // Too long a hint for a shorter lead is cut to what the lead allows.
    let running = Settings { refresh_hint_s: None, ..running.clone() };
    running.check(&next.realms).map_err(|why| {
        format!("{why}: the socket for kube-apiserver serves that realm until the service restarts")
    })
}

/// What to tell an operator who lowers the ceiling under a running API server.
#[must_use]
pub fn lowers_ceiling(
    running: Option<&Settings>,
    current: &PolicyDocument,
    next: &Config,
) -> Option<String> {
    let name = &running?.realm;
    let before = current.realms.iter().find(|r| r.name == *name)?.schedule.max_lifetime_s;
    let after = next.realms.iter().find(|r| r.name == *name)?.schedule.max_lifetime_s;
    (after < before).then(|| {
        format!(
            "realm `{name}`: max_lifetime_s goes from {before} to {after}; API servers asked for it at \
             their start and get no longer token until they are restarted: restart them now"
        )
    })
}

/// Keys of the `[kubernetes]` table that a reload changes in vain, named as the file names them.
#[must_use]
pub fn in_vain(running: Option<&Settings>, next: &Config) -> Vec<&'static str> {
    let Some(old) = running else {
        return next.kubernetes.iter().map(|_| "kubernetes").collect();
    };
    // A socket of the command line needs no table, and has the defaults.
    let new = next.kubernetes.clone().unwrap_or_else(|| Settings::of(&old.realm));
    let moved = new.socket.is_some() && old.socket != new.socket;
    [
        ("kubernetes.realm", old.realm != new.realm),
        ("kubernetes.socket", moved),
        ("kubernetes.socket_mode", old.socket_mode != new.socket_mode),
        ("kubernetes.allowed_uids", old.allowed_uids != new.allowed_uids),
        ("kubernetes.refresh_hint_s", old.refresh_hint_s != new.refresh_hint_s),
        ("kubernetes.answer_within_ms", old.answer_within_ms != new.answer_within_ms),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        base_url = "https://issuer.example"
        [kubernetes]
        realm = "cluster"
        socket = "/run/chancery/kubernetes.sock"
        [[realms]]
        name = "cluster"
        issuer = "https://kubernetes.default.svc.cluster.local"
        algorithms = ["ES256"]
        [realms.schedule]
        publish_lead_s = 300
        max_lifetime_s = 3600
        [realms.kubernetes]
        audiences = ["https://kubernetes.default.svc.cluster.local"]
        service_accounts = ["*:*"]
    "#;

    fn file(change: impl FnOnce(&str) -> String) -> Config {
        Config::parse(&change(FILE)).unwrap()
    }

    #[test]
    fn the_realm_of_an_open_socket_stays() {
        let running = file(str::to_owned).kubernetes.unwrap();
        check(Some(&running), &file(str::to_owned)).unwrap();
        check(Some(&running), &file(|f| f.replace("= 3600", "= 7200"))).unwrap();
        let renamed = file(|f| f.replace("\"cluster\"", "\"other\""));
        assert!(check(Some(&running), &renamed).unwrap_err().contains("restarts"));
        assert_eq!(check(None, &renamed), Ok(()));
        let hinted = Settings { refresh_hint_s: Some(150), ..running };
        check(Some(&hinted), &file(|f| f.replace("= 300", "= 60"))).unwrap();
    }

    #[test]
    fn a_lower_ceiling_is_said() {
        let running = file(str::to_owned);
        let (settings, current) = (running.kubernetes.clone(), running.policy(1));
        let to = |s: &str| {
            let next = file(|f| f.replace("= 3600", s));
            lowers_ceiling(settings.as_ref(), &current, &next)
        };
        assert!(to("= 1200").unwrap().contains("from 3600 to 1200"));
        assert_eq!((to("= 3600"), to("= 7200")), (None, None));
    }

    #[test]
    fn what_needs_a_restart_is_named() {
        let running = file(str::to_owned).kubernetes.unwrap();
        let found = |next: &Config| in_vain(Some(&running), next);
        assert!(found(&file(str::to_owned)).is_empty());
        let changed = |f: &str| {
            f.replace("socket = ", "socket_mode = 0o660\nallowed_uids = [0]\nsocket = ")
                .replace("kubernetes.sock", "k.sock")
        };
        assert_eq!(
            found(&file(changed)),
            ["kubernetes.socket", "kubernetes.socket_mode", "kubernetes.allowed_uids"]
        );
        let mut without = file(str::to_owned);
        without.kubernetes = None;
        assert!(found(&without).is_empty(), "the command line may have named the socket");
        let open = Settings { socket_mode: 0o660, ..running.clone() };
        assert_eq!(in_vain(Some(&open), &without), ["kubernetes.socket_mode"]);
        assert_eq!(in_vain(None, &file(str::to_owned)), ["kubernetes"]);
        // The socket of the command line, and none in the file.
        let unnamed = file(|f| f.replace("socket = \"/run/chancery/kubernetes.sock\"", ""));
        assert!(found(&unnamed).is_empty());
    }
}
