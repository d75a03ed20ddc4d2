/** Tables in CSV (RFC 4180). */

/**
 * Return a table; what is unknown, null or NaN, is an empty field.
 * @param {string[]} header
 * @param {(string | number | null | undefined)[][]} rows
 */
export function csvTable(header, rows) {
  return [header, ...rows].map((row) => `${row.map(field).join(",")}\n`).join("")
}

/** @param {string | number | null | undefined} value */
function field(value) {
  if (value == null || Number.isNaN(value)) return ""
  const text = String(value)
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}
