// SPDX-License-Identifier: MPL-2.0
//! The numbers at the end: records for the log and a table for people. Pure.

use super::protocol::{Element, Pool, Snapshot};

/// How often a pool's numbers are logged while it is used.
pub fn sample_record(name: &str, pool: &Pool) -> gst::Structure {
    gst::Structure::builder("physmem-pool-sample")
        .field("name", name)
        .field("total", pool.total)
        .field("free", pool.free)
        .field("filled", pool.filled)
        .build()
}

/// The last numbers of an element.
pub fn element_record(element: &Element) -> gst::Structure {
    gst::Structure::builder("physmem-element")
        .field("name", &element.name)
        .field("factory", &element.factory)
        .field("frames", element.frames)
        .field_if_some("zero-copy", element.zero_copy)
        .field_if_some("copied", element.copied)
        .field("dropped", element.dropped)
        .field_if_some("flip-latency-mean-us", element.flip_latency_mean_us)
        .field_if_some("flip-latency-max-us", element.flip_latency_max_us)
        .field("path", &element.path)
        .build()
}

/// The last numbers of a pool.
pub fn pool_record(pool: &Pool) -> gst::Structure {
    gst::Structure::builder("physmem-pool")
        .field("name", &pool.name)
        .field("kind", &pool.kind)
        .field("buffers", pool.total)
        .field("bytes", pool.bytes)
        .field("acquired", pool.acquired)
        .field("waits", pool.waits)
        .field("in-use-mean", pool.in_use.mean())
        .field("in-use-most", pool.in_use.most)
        .field_if_some("filled-by", pool.filled_by.as_deref())
        .build()
}

/// The table of all elements and pools.
pub fn table(snapshot: &Snapshot) -> String {
    let number = |number: u64| number.to_string();
    let optional = |value: Option<u64>| value.map_or("-".into(), number);
    let elements = snapshot.elements.iter().map(|element| {
        let latency = match (element.flip_latency_mean_us, element.flip_latency_max_us) {
            (Some(mean), Some(max)) => format!("{mean}/{max}"),
            _ => "-".into(),
        };
        vec![
            element.name.clone(),
            number(element.frames),
            optional(element.zero_copy),
            optional(element.copied),
            number(element.dropped),
            latency,
            element.path.clone(),
        ]
    });
    let pools = snapshot.pools.iter().map(|pool| {
        vec![
            pool.name.clone(),
            pool.kind.clone(),
            number(pool.total.into()),
            number(pool.bytes),
            number(pool.acquired),
            number(pool.waits),
            format!("{:.1}", pool.in_use.mean()),
            number(pool.in_use.most.into()),
            pool.filled_by.clone().unwrap_or("-".into()),
        ]
    });
    let of_elements = [
        "element",
        "frames",
        "zero-copy",
        "copied",
        "dropped",
        "flip mean/max us",
        "path",
    ];
    let of_pools = [
        "pool",
        "kind",
        "buffers",
        "bytes",
        "acquired",
        "waits",
        "in use",
        "most",
        "filled by",
    ];
    let tables = [
        aligned(&of_elements, elements.collect()),
        aligned(&of_pools, pools.collect()),
    ];
    tables.concat()
}

/// Lines whose columns begin below one another; nothing where there are no rows.
fn aligned(header: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let header = header.iter().map(|name| (*name).to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().enumerate();
        let cells: Vec<_> = cells
            .map(|(column, cell)| format!("{cell:<width$}", width = width(column)))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracer::protocol::{InUse, VERSION};

    fn snapshot() -> Snapshot {
        let source = Element {
            name: "rawvideosrc0".into(),
            frames: 300,
            path: "read: it is a file".into(),
            ..Default::default()
        };
        let sink = Element {
            name: "sink".into(),
            frames: 299,
            zero_copy: Some(299),
            copied: Some(0),
            dropped: 1,
            flip_latency_mean_us: Some(8_123),
            flip_latency_max_us: Some(16_001),
            path: "zero-copy".into(),
            ..Default::default()
        };
        let pool = Pool {
            name: "physbufferpool0".into(),
            kind: "udmabuf".into(),
            total: 4,
            bytes: 1_228_800,
            acquired: 300,
            waits: 2,
            in_use: InUse {
                samples: 4,
                sum: 10,
                most: 4,
            },
            ..Default::default()
        };
        Snapshot {
            version: VERSION,
            pid: 1,
            program: "test".into(),
            time_ns: 0,
            elements: vec![source, sink],
            pools: vec![pool],
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_element_and_pool() {
        let expected = "\
element       frames  zero-copy  copied  dropped  flip mean/max us  path
rawvideosrc0  300     -          -       0        -                 read: it is a file
sink          299     299        0       1        8123/16001        zero-copy
pool             kind     buffers  bytes    acquired  waits  in use  most  filled by
physbufferpool0  udmabuf  4        1228800  300       2      2.5     4     -
";
        assert_eq!(table(&snapshot()), expected);
        let nothing = Snapshot {
            elements: vec![],
            pools: vec![],
            ..snapshot()
        };
        assert_eq!(table(&nothing), "");
    }

    #[test]
    fn records_leave_out_what_is_not_measured() {
        gst::init().unwrap();
        let snapshot = snapshot();
        let source = element_record(&snapshot.elements[0]);
        assert!(!source.has_field("copied") && !source.has_field("flip-latency-mean-us"));
        let sink = element_record(&snapshot.elements[1]);
        assert_eq!(sink.get::<u64>("zero-copy").unwrap(), 299);
        assert_eq!(sink.get::<u64>("flip-latency-max-us").unwrap(), 16_001);
        let pool = pool_record(&snapshot.pools[0]);
        assert_eq!(pool.get::<f64>("in-use-mean").unwrap(), 2.5);
    }
}
