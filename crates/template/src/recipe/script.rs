//! What a sandbox does to carry out a recipe: one script for its `/bin/sh`.
//!
//! Its words, on standard error, follow those of the program that builds templates: lines that begin with `I: ` tell what goes on, the
//! first that begins with `E: ` says why it failed.

use std::fmt::Write as _;

use super::Recipe;
use super::manager::{PackageJob, PackagePlace, PackageTask};
use super::setting::variable;
use crate::manifest::{Distribution, PackageManager};

/// Begins every script. What it and its programs print goes where errors go: standard output is for answers, by
/// descriptor 3.
pub(super) const HEAD: &str = r#"set -eu
exec 3>&1 1>&2
umask 022
export LC_ALL=C.UTF-8 HOME=/root
say() { printf 'I: %s\n' "$1"; }
fail() { printf 'E: %s\n' "$1"; exit 1; }
"#;

/// A text as one word of a shell.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

impl Recipe {
    /// What it installs on a template of this distribution, with this manager of packages, from another mirror if there is
    /// one.
    #[must_use]
    pub fn job<'a>(
        &'a self,
        distribution: &'a Distribution,
        manager: PackageManager,
        mirror: Option<&'a str>,
    ) -> PackageJob<'a> {
        let id = distribution.id.as_deref().unwrap_or_default();
        PackageJob {
            task: PackageTask::Install(self.packages_on.get(id).unwrap_or(&self.packages)),
            place: PackagePlace::Sandbox,
            distribution,
            manager,
            mirror,
        }
    }

    /// The script that does all that the recipe says, [`Recipe::job`] first. Lists of packages are there by then.
    #[must_use]
    pub fn script(&self, job: &PackageJob<'_>) -> String {
        let id = job.distribution.id.as_deref().unwrap_or_default();
        let services = self.services_on.get(id).unwrap_or(&self.services);
        let mut script = job.script();
        self.write_files(&mut script);
        let count = self.commands.len();
        for (index, command) in self.commands.iter().enumerate() {
            let number = index + 1;
            let first: String = command
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(100)
                .collect();
            let told = quoted(&format!("command {number} of {count}: {first}"));
            let failed = quoted(&format!("command {number} of the recipe failed: {first}"));
            let command = quoted(command);
            let _ = writeln!(
                script,
                "say {told}\n/bin/sh -e -c {command} </dev/null || fail {failed}"
            );
        }
        for service in services {
            let failed = quoted(&format!("the service `{service}` could not be enabled"));
            let service = quoted(service);
            let _ = writeln!(
                script,
                "if command -v systemctl >/dev/null; then systemctl enable {service} || fail {failed}\n\
                 elif command -v rc-update >/dev/null; then rc-update add {service} default || fail {failed}\n\
                 else fail {failed}; fi"
            );
        }
        self.offer(&mut script, services);
        script
    }

    fn write_files(&self, script: &mut String) {
        for file in &self.files {
            let failed = quoted(&format!("the file {} could not be written", file.path));
            let (path, content) = (quoted(&file.path), quoted(&file.content));
            let mode = file.mode.as_deref().unwrap_or("0644");
            let owner = quoted(file.owner.as_deref().unwrap_or("0:0"));
            let _ = writeln!(
                script,
                "mkdir -p \"$(dirname {path})\" && rm -f {path} && printf %s {content} >{path} \
                 && chown {owner} {path} && chmod {mode} {path} || fail {failed}"
            );
        }
    }

    /// Puts `configure` and the unit that runs it once into the template.
    fn offer(&self, script: &mut String, services: &[String]) {
        let Some(configure) = &self.configure else {
            return;
        };
        let name = &self.name;
        let defaults: String = self
            .settings
            .iter()
            .map(|(setting, offered)| {
                format!("{}={}\n", variable(setting), quoted(&offered.default))
            })
            .collect();
        let export = match self
            .settings
            .keys()
            .map(|setting| variable(setting))
            .collect::<Vec<_>>()
        {
            names if names.is_empty() => String::new(),
            names => format!("export {}\n", names.join(" ")),
        };
        let configure = format!(
            "#!/bin/sh\n# Applies the settings of the application {name}, at the VE's first start with it.\nset -eu\n\
             {defaults}settings=/etc/vessel/applications/{name}.env\n\
             if [ -r \"$settings\" ]; then . \"$settings\"; fi\n{export}{configure}\n\
             mkdir -p /var/lib/vessel/configured\n: >/var/lib/vessel/configured/{name}\n"
        );
        let unit = format!(
            "[Unit]\nDescription=Settings of the application {name}\n\
             ConditionPathExists=!/var/lib/vessel/configured/{name}\n\
             Before={}\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
             ExecStart=/usr/lib/vessel/configure/{name}\n\n[Install]\nWantedBy=multi-user.target\n",
            services.join(" ")
        );
        let (configure, unit) = (quoted(&configure), quoted(&unit));
        let failed = quoted("settings of an application need systemd in its template");
        let _ = writeln!(
            script,
            "command -v systemctl >/dev/null || fail {failed}\nmkdir -p /usr/lib/vessel/configure\n\
             printf %s {configure} >/usr/lib/vessel/configure/{name}\n\
             chmod 755 /usr/lib/vessel/configure/{name}\n\
             printf %s {unit} >/usr/lib/systemd/system/vessel-configure-{name}.service\n\
             systemctl enable vessel-configure-{name}.service"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_single_words_of_a_shell() {
        for text in ["", "plain", "it's", "$(reboot)", "`x`", "a\nb", "\\'", "''"] {
            let echoed = std::process::Command::new("/bin/sh")
                .args(["-c", &format!("printf %s {}", quoted(text))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(echoed.stdout).unwrap(), text);
        }
    }

    #[test]
    fn every_script_is_understood_by_a_shell() {
        let text = "name = 'a'\npackages = ['b', 'c']\ncommands = [\"echo it's\", 'true']\n\
                    services = ['a.service']\nconfigure = 'echo $PORT'\n\
                    [[files]]\npath = \"/etc/a'b\"\ncontent = \"'\\n$x\"\n\
                    [settings.port]\ndescription = 'd'\nkind = 'port'\ndefault = '80'";
        let recipe = Recipe::parse(text).unwrap();
        for manager in [
            PackageManager::Dpkg,
            PackageManager::Apk,
            PackageManager::Pacman,
            PackageManager::Rpm,
            PackageManager::Unknown,
        ] {
            for mirror in [None, Some("http://mirror.example.org/debian")] {
                let distribution = Distribution::default();
                let script = recipe.script(&recipe.job(&distribution, manager, mirror));
                let checked = std::process::Command::new("/bin/sh")
                    .args(["-n", "-c", &script])
                    .output()
                    .unwrap();
                let words = String::from_utf8_lossy(&checked.stderr);
                assert!(checked.status.success(), "{words}\n{script}");
            }
        }
    }
}
