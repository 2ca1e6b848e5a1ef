//! `/proc/cpuinfo`.

/// `/proc/cpuinfo` with the shown processors only. `host` is the kernel's own text: a paragraph for
/// each processor, and on some architectures one about all of them. A text without paragraphs of
/// processors (s390) is left as it is.
#[must_use]
pub fn cpuinfo(host: &str, processors: &[u32]) -> String {
    let paragraphs: Vec<(Option<u32>, &str)> = host
        .split_inclusive("\n\n")
        .map(|paragraph| (number(paragraph), paragraph))
        .collect();
    if paragraphs.iter().all(|(number, _)| number.is_none()) {
        return host.to_owned();
    }
    let shown = |number: &Option<u32>| number.is_none_or(|number| processors.contains(&number));
    let chosen = paragraphs.iter().filter(|(number, _)| shown(number));
    chosen.map(|(_, paragraph)| *paragraph).collect()
}

/// The number of the processor that a paragraph is about: `processor<tab>: 3`.
fn number(paragraph: &str) -> Option<u32> {
    paragraph.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "processor").then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const X86: &str = "processor\t: 0\nvendor_id\t: A\n\nprocessor\t: 1\nvendor_id\t: A\n\n";
    const ARM: &str = "processor\t: 0\nBogoMIPS\t: 50.00\n\nprocessor\t: 1\nBogoMIPS\t: 50.00\n\n\
                       Hardware\t: Board\n";

    #[test]
    fn keeps_what_is_shown_and_what_is_about_all() {
        assert_eq!(cpuinfo(X86, &[0, 1]), X86);
        assert_eq!(cpuinfo(X86, &[1]), "processor\t: 1\nvendor_id\t: A\n\n");
        assert_eq!(
            cpuinfo(ARM, &[0]),
            "processor\t: 0\nBogoMIPS\t: 50.00\n\nHardware\t: Board\n"
        );
        let s390 = "vendor_id       : IBM/S390\n# processors    : 2\nprocessor 0: version = FF\n";
        assert_eq!(cpuinfo(s390, &[0]), s390);
        assert_eq!(cpuinfo("", &[0]), "");
    }
}
