//! The body of `/v1/coordinate/update`.

use super::{Decode, Fault, Fields, Json, or_default};
use crate::store::Coordinate;

/// Where a node says it is.
#[derive(Debug, Default)]
pub(crate) struct CoordinateUpdate {
    pub datacenter: String,
    pub node: String,
    pub segment: String,
    pub coordinate: Option<Coordinate>,
}

impl CoordinateUpdate {
    pub(crate) fn decode(json: Json<'_>) -> Result<Self, Fault> {
        let context = "CoordinateUpdateRequest";
        let mut fields = Fields::of(json, context, "structs.CoordinateUpdateRequest")?;
        let update = Self {
            datacenter: fields.take("Datacenter"),
            node: fields.take("Node"),
            segment: fields.take("Segment"),
            coordinate: fields.take_with(&["Coord"], |json| coordinate(json).map(Some)),
        };
        fields.take::<String>("Token");
        fields.finish()?;
        Ok(update)
    }
}

fn coordinate(json: Json<'_>) -> Result<Coordinate, Fault> {
    let mut fields = Fields::of(json, "Coordinate.Coord", "coordinate.Coordinate")?;
    let coordinate = Coordinate {
        vec: fields.take("Vec"),
        error: fields.take("Error"),
        adjustment: fields.take("Adjustment"),
        height: fields.take("Height"),
    };
    fields.finish()?;
    Ok(coordinate)
}

impl Decode for f64 {
    fn decode(json: Json<'_>) -> Result<Self, Fault> {
        let Json::Number(number) = &json else {
            return Err(Fault::mismatch(&json, "float64"));
        };
        let parsed = number
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite());
        parsed.ok_or_else(|| Fault::Type {
            found: format!("number {number}"),
            wanted: "float64",
            field: None,
        })
    }
}

impl Decode for Vec<f64> {
    fn decode(json: Json<'_>) -> Result<Self, Fault> {
        match json {
            Json::Array(items) => items.into_iter().map(or_default).collect(),
            other => Err(Fault::mismatch(&other, "[]float64")),
        }
    }
}
