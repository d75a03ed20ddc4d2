/** Decodes what viewer/rendering/frame_codec.py encodes: the length of the header, the header as JSON, the arrays. */

/** @typedef {Float32Array | Float64Array | Uint8Array | Int32Array} NumberArray */
/** @typedef {NumberArray & {shape: number[]}} WireArray an array with its shape, in C order */

/**
 * @typedef {object} PagePart what is new of one part of the page
 * @property {string} part
 * @property {unknown} data
 * @property {WireArray} [atlas] images, present where they are new
 */

/**
 * @typedef {object} Frame
 * @property {PagePart[]} parts
 * @property {number} sent serial number; the same as before for a chart or the reply to a command
 * @property {boolean} [confirm] whether the server waits until this frame is painted
 * @property {number[]} stamps Unix times (s) at which the newest snapshot was published, read and sent
 */

const ARRAY_TYPES = {f4: Float32Array, f8: Float64Array, u1: Uint8Array, i4: Int32Array}

/**
 * The arrays are views of `buffer`.
 * @param {ArrayBuffer} buffer
 * @returns {Frame}
 */
export function decodeFrame(buffer) {
  const length = new DataView(buffer).getUint32(0, true)
  const begin = 4 + length
  const header = new TextDecoder().decode(new Uint8Array(buffer, 4, length))
  return JSON.parse(header, (_, value) => {
    if (value?.$array == null) return value
    const [type, offset, shape] = /** @type {[keyof ARRAY_TYPES, number, number[]]} */ (value.$array)
    const size = shape.reduce((product, extent) => product * extent, 1)
    return Object.assign(new ARRAY_TYPES[type](buffer, begin + offset, size), {shape})
  })
}
