//! Numbers as they are written on the command line.

pub fn duration(s: &str) -> Result<std::time::Duration, String> {
    let s = s.trim();
    let (number, unit) = match (s.strip_suffix('s'), s.strip_suffix('m')) {
        (Some(n), _) => (n, 1.0),
        (_, Some(n)) => (n, 60.0),
        _ => (s, 1.0),
    };
    let n = number.trim().parse().ok().filter(|&n: &f64| n > 0.0 && n < 1e7);
    n.map(|n| std::time::Duration::from_secs_f64(n * unit))
        .ok_or_else(|| format!("'{s}' is no time such as 60s or 2m"))
}

pub fn seconds(s: &str) -> Result<f64, String> {
    let n = s.parse().ok().filter(|&n| n > 0.0 && n < 1e9);
    n.ok_or_else(|| format!("'{s}' is not a number of seconds"))
}

pub fn image_size(s: &str) -> Result<[usize; 2], String> {
    let side = |n: &str| n.trim().parse().map_err(|_| format!("'{s}' is not a size such as 224 or 480x640"));
    match s.split_once(['x', 'X']) {
        Some((h, w)) => Ok([side(h)?, side(w)?]),
        None => side(s).map(|n| [n, n]),
    }
}

pub fn fraction(s: &str) -> Result<f32, String> {
    let number =
        |n: &str| n.trim().parse::<f32>().map_err(|_| format!("'{s}' is not a number such as 1/255"));
    match s.split_once('/') {
        Some((a, b)) => Ok(number(a)? / number(b)?),
        None => number(s),
    }
}

pub fn methods_help() -> String {
    format!(
        "Only these methods, separated by commas; a leading '-' leaves one out: {}. 'channels' removes whole channels from \
         all layers that share them",
        search::names().join(", ")
    )
}
