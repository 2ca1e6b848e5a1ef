//! Recipes: what is installed on a template to make an application of it.
//!
//! A recipe is a TOML document. Everything in it is text from people: it is checked here once, and what
//! it makes a sandbox do is written by [`Recipe::script`]. It runs nowhere else, and with no rights but those of
//! a VE's root, so the checks are for clear messages, not the wall.
//!
//! ```toml
//! name = "redis"
//! description = "Redis, a store of keys and values in memory"
//! on = ["debian", "ubuntu"]            # distributions (`ID` of os-release); without it any
//! packages = ["redis-server"]
//! commands = ["sed -i 's/^bind .*/bind 0.0.0.0/' /etc/redis/redis.conf"]
//! services = ["redis-server.service"]
//! configure = "sed -i \"s/^# maxmemory .*/maxmemory $MAXMEMORY/\" /etc/redis/redis.conf"
//!
//! [packages_on]                        # instead of `packages`, on these distributions
//! alpine = ["redis"]
//!
//! [[files]]                            # written after the packages are installed
//! path = "/etc/sysctl.d/redis.conf"
//! content = "..."
//!
//! [settings.maxmemory]                 # offered to whoever creates a VE, in the environment of `configure`
//! description = "Memory for keys"
//! kind = "size"
//! default = "64mb"
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use ve::{Name, Options};

use crate::manifest::Distribution;

mod manager;
mod script;
mod setting;

pub use manager::{ARCHIVES, PackageJob, PackagePlace, PackageTask};
pub use setting::{InvalidOption, Kind, OfferedSetting};

/// Bytes of a recipe.
const RECIPE_BYTES_MAX: usize = 256 << 10;
/// Packages, files, commands and services of a recipe, each.
const PARTS_MAX: usize = 500;
/// Settings that a recipe offers.
const SETTINGS_MAX: usize = 50;
/// Bytes of a path in a recipe.
const PATH_BYTES_MAX: usize = 1024;

/// What is installed on a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the application.
    pub name: String,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Distributions that it is for, by the `ID` of their os-release; empty for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<String>,
    /// Packages, as the distribution's own program takes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// Commands for the sandbox's `/bin/sh`, after packages and files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// Services that a VE of it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// Commands of a VE's first start, with its settings in the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configure: Option<String>,
    /// Packages instead of [`Recipe::packages`], by distribution.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub packages_on: BTreeMap<String, Vec<String>>,
    /// Services instead of [`Recipe::services`], by distribution.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services_on: BTreeMap<String, Vec<String>>,
    /// Files, written after the packages are installed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<RecipeFile>,
    /// Settings that whoever creates a VE may choose, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, OfferedSetting>,
}

/// A file of a recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeFile {
    /// Where it lies; what is there is replaced.
    pub path: String,
    /// Its content.
    pub content: String,
    /// Its mode in octal digits; without it 0644.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Its owner, `USER` or `USER:GROUP`, by names of the template; without it root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// A text that cannot be a recipe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecipe {
    /// Too long.
    #[error(
        "the recipe has {bytes} bytes, more than {RECIPE_BYTES_MAX}; let a command fetch what is large"
    )]
    Length {
        /// How many.
        bytes: usize,
    },
    /// No TOML, or with fields that no recipe has.
    #[error("the recipe cannot be read: {what}")]
    Syntax {
        /// What and where.
        what: String,
    },
    /// One of its values makes no sense.
    #[error("the recipe's {field} `{value}` {rule}")]
    Value {
        /// Where it stands.
        field: &'static str,
        /// The value, shortened.
        value: String,
        /// What is wrong.
        rule: &'static str,
    },
    /// Too much of something.
    #[error("the recipe has more than {most} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// The template is of another distribution.
    #[error("the recipe `{name}` is for {wanted}, and the template is {found}")]
    Distribution {
        /// The recipe.
        name: String,
        /// What it is for.
        wanted: String,
        /// What was found.
        found: String,
    },
}

impl Recipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// Names what is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, InvalidRecipe> {
        if text.len() > RECIPE_BYTES_MAX {
            return Err(InvalidRecipe::Length { bytes: text.len() });
        }
        let recipe: Self = toml::from_str(text).map_err(|error| InvalidRecipe::Syntax {
            what: error.to_string().trim_end().to_owned(),
        })?;
        recipe.check()?;
        Ok(recipe)
    }

    /// A recipe of nothing but packages.
    #[must_use]
    pub fn of_packages(name: &Name, packages: Vec<String>) -> Self {
        Self {
            name: name.to_string(),
            description: String::new(),
            on: Vec::new(),
            packages,
            commands: Vec::new(),
            services: Vec::new(),
            configure: None,
            packages_on: BTreeMap::new(),
            services_on: BTreeMap::new(),
            files: Vec::new(),
            settings: BTreeMap::new(),
        }
    }

    /// The recipe as text that [`Recipe::parse`] reads.
    ///
    /// # Errors
    /// Those of TOML, which has no form for some texts.
    pub fn text(&self) -> Result<String, InvalidRecipe> {
        toml::to_string(self).map_err(|error| InvalidRecipe::Syntax {
            what: error.to_string(),
        })
    }

    /// Whether it is for this distribution.
    ///
    /// # Errors
    /// [`InvalidRecipe::Distribution`].
    pub fn fits(&self, distribution: &Distribution) -> Result<(), InvalidRecipe> {
        let found = distribution
            .id
            .as_deref()
            .unwrap_or("of an unknown distribution");
        if self.on.is_empty() || self.on.iter().any(|id| id == found) {
            return Ok(());
        }
        Err(InvalidRecipe::Distribution {
            name: self.name.clone(),
            wanted: self.on.join(", "),
            found: found.to_owned(),
        })
    }

    /// What was chosen of its settings, with defaults for the rest: the environment of its `configure`.
    ///
    /// # Errors
    /// Refuses what it does not offer, and values of the wrong kind.
    pub fn options(&self, chosen: &Options) -> Result<Options, InvalidOption> {
        for (name, value) in chosen {
            let offered = self
                .settings
                .get(name)
                .ok_or_else(|| InvalidOption::Unknown {
                    application: self.name.clone(),
                    name: name.clone(),
                    offered: match self.settings.is_empty() {
                        true => "none".to_owned(),
                        false => self.settings.keys().cloned().collect::<Vec<_>>().join(", "),
                    },
                })?;
            offered.check(value).map_err(|rule| InvalidOption::Value {
                application: self.name.clone(),
                name: name.clone(),
                value: shortened(value),
                rule,
            })?;
        }
        let defaults = self.settings.iter();
        let defaults = defaults.map(|(name, offered)| (name.clone(), offered.default.clone()));
        let mut options: Options = defaults.collect();
        options.extend(chosen.clone());
        Ok(options)
    }

    /// The file that tells a VE its settings, which its `configure` reads: assignments for a shell.
    #[must_use]
    pub fn options_file(options: &Options) -> String {
        let line = |(name, value): (&String, &String)| {
            format!("{}={}\n", setting::variable(name), script::quoted(value))
        };
        options.iter().map(line).collect()
    }

    /// Where that file lies in a VE.
    #[must_use]
    pub fn options_path(application: &Name) -> String {
        format!("/etc/vessel/applications/{application}.env")
    }

    fn check(&self) -> Result<(), InvalidRecipe> {
        let value = |field, value: &str, rule| InvalidRecipe::Value {
            field,
            value: shortened(value),
            rule,
        };
        Name::new(&self.name).map_err(|_| {
            value(
                "name",
                &self.name,
                "is no name: small letters, digits and dashes, beginning with a letter",
            )
        })?;
        for (what, count, most) in [
            ("packages", self.packages.len(), PARTS_MAX),
            ("commands", self.commands.len(), PARTS_MAX),
            ("services", self.services.len(), PARTS_MAX),
            ("files", self.files.len(), PARTS_MAX),
            ("settings", self.settings.len(), SETTINGS_MAX),
        ] {
            if count > most {
                return Err(InvalidRecipe::TooMany { what, most });
            }
        }
        let packages = self
            .packages
            .iter()
            .chain(self.packages_on.values().flatten());
        if let Some(package) = packages
            .into_iter()
            .find(|package| !is_word(package, "+-.~:=_@"))
        {
            return Err(value("package", package, "is no package name"));
        }
        let services = self
            .services
            .iter()
            .chain(self.services_on.values().flatten());
        if let Some(service) = services
            .into_iter()
            .find(|service| !is_word(service, "-.:_@\\"))
        {
            return Err(value("service", service, "is no name of a service"));
        }
        let texts = self.commands.iter().chain(&self.configure);
        if let Some(text) = texts
            .into_iter()
            .find(|text| text.contains('\0') || text.trim().is_empty())
        {
            return Err(value("command", text, "is empty, or has a zero byte"));
        }
        self.files.iter().try_for_each(RecipeFile::check)?;
        for (name, offered) in &self.settings {
            if !setting::is_name(name) {
                let rule = "is no setting: small letters, digits and `_`, beginning with a letter";
                return Err(value("setting", name, rule));
            }
            offered
                .check_offer()
                .map_err(|rule| value("setting", name, rule))?;
        }
        Ok(())
    }
}

impl RecipeFile {
    fn check(&self) -> Result<(), InvalidRecipe> {
        let value = |field, value: &str, rule| InvalidRecipe::Value {
            field,
            value: shortened(value),
            rule,
        };
        let path = &self.path;
        let up = path.split('/').any(|part| part == "..");
        if !path.starts_with('/') || path.ends_with('/') || up || path.len() > PATH_BYTES_MAX {
            return Err(value(
                "path of a file",
                path,
                "is no absolute path of a file",
            ));
        }
        if path.chars().any(char::is_control) || self.content.contains('\0') {
            return Err(value(
                "path of a file",
                path,
                "has control characters in it, or a zero byte in its file",
            ));
        }
        let octal = |mode: &String| {
            (3..=4).contains(&mode.len()) && mode.chars().all(|c| ('0'..='7').contains(&c))
        };
        if let Some(mode) = self.mode.as_ref().filter(|mode| !octal(mode)) {
            return Err(value("mode of a file", mode, "is no mode, as `0644`"));
        }
        if let Some(owner) = self.owner.as_ref().filter(|owner| !is_word(owner, "-_.:")) {
            return Err(value(
                "owner of a file",
                owner,
                "is no owner, as `redis:redis`",
            ));
        }
        Ok(())
    }
}

/// Letters, digits and some more, beginning with a letter or digit: never an option, a pattern or two words.
fn is_word(text: &str, more: &str) -> bool {
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let plain = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
    begins && text.len() <= 200 && text.chars().all(plain)
}

fn shortened(text: &str) -> String {
    text.escape_debug().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Recipe::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn says_what_is_wrong_with_a_recipe() {
        for (text, words) in [
            ("", "missing field `name`"),
            ("name = 'Nginx'", "name `Nginx` is no name"),
            ("name = 'a'\nsurprise = 1", "unknown field `surprise`"),
            (
                "name = 'a'\npackages = ['-y']",
                "package `-y` is no package name",
            ),
            ("name = 'a'\npackages = ['a b']", "package `a b`"),
            ("name = 'a'\nservices = ['$(x)']", "service `$(x)`"),
            ("name = 'a'\ncommands = ['']", "command `` is empty"),
            (
                "name = 'a'\n[[files]]\npath = '/a/../b'\ncontent = ''",
                "path of a file `/a/../b`",
            ),
            (
                "name = 'a'\n[[files]]\npath = '/a'\ncontent = ''\nmode = 'rwx'",
                "mode of a file `rwx`",
            ),
            (
                "name = 'a'\n[settings.Port]\ndescription = ''\ndefault = '1'",
                "setting `Port`",
            ),
            (
                "name = 'a'\n[settings.port]\ndescription = ''\nkind = 'port'\ndefault = 'http'",
                "setting `port` has a default that is not of its kind",
            ),
        ] {
            let message = refused(text);
            assert!(message.contains(words), "{text}: {message}");
        }
        let long = format!(
            "name = 'a'\ndescription = '{}'",
            "x".repeat(RECIPE_BYTES_MAX)
        );
        assert!(refused(&long).contains("bytes, more than"));
    }

    #[test]
    fn a_recipe_is_for_its_distributions_only() {
        let recipe = Recipe::parse("name = 'a'\non = ['debian', 'ubuntu']").unwrap();
        let of = |id: &str| Distribution {
            id: Some(id.to_owned()),
            ..Distribution::default()
        };
        recipe.fits(&of("debian")).unwrap();
        let error = recipe.fits(&of("alpine")).unwrap_err().to_string();
        assert_eq!(
            error,
            "the recipe `a` is for debian, ubuntu, and the template is alpine"
        );
    }

    #[test]
    fn a_recipe_of_packages_can_be_read_again() {
        let recipe =
            Recipe::of_packages(&Name::new("web").unwrap(), vec!["nginx-light".to_owned()]);
        assert_eq!(Recipe::parse(&recipe.text().unwrap()).unwrap(), recipe);
    }

    #[test]
    fn settings_that_are_chosen_are_checked_and_the_rest_has_defaults() {
        let recipe = Recipe::parse(
            "name = 'a'\n[settings.port]\ndescription = ''\nkind = 'port'\ndefault = '80'\n\
             [settings.greeting]\ndescription = ''\ndefault = 'hello'",
        )
        .unwrap();
        let choose = |pairs: &[(&str, &str)]| {
            let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            recipe.options(&pairs.iter().map(own).collect())
        };
        let options = choose(&[("greeting", "it's $HOME")]).unwrap();
        let file = "GREETING='it'\\''s $HOME'\nPORT='80'\n";
        assert_eq!(Recipe::options_file(&options), file);
        let error = choose(&[("prot", "1")]).unwrap_err().to_string();
        assert_eq!(
            error,
            "the application `a` has no setting `prot`; it offers: greeting, port"
        );
        assert!(choose(&[("port", "0")]).is_err());
        assert!(choose(&[("greeting", "two\nlines")]).is_err());
    }

    #[test]
    fn the_recipes_that_come_with_the_project_can_be_read() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let recipe = Recipe::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert_eq!(
                path.file_stem().unwrap().to_str(),
                Some(recipe.name.as_str())
            );
            assert_eq!(Recipe::parse(&recipe.text().unwrap()).unwrap(), recipe);
            names.push(recipe.name);
        }
        names.sort();
        let wanted = [
            "apache",
            "developer",
            "lamp",
            "nginx",
            "openssh",
            "postgresql",
            "redis",
        ];
        assert_eq!(names, wanted);
    }
}
