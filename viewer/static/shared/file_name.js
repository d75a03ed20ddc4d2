/** Names of saved files. */

/**
 * Return a file name of the parts that are not empty, without characters that a file system may refuse.
 * @param {string[]} parts
 * @param {string} extension
 */
export function fileName(parts, extension) {
  const words = parts.map((part) => part.trim().replaceAll(/[^\p{L}\p{N}._-]+/gu, "_")).filter((part) => part !== "")
  return `${words.join("-")}.${extension}`
}
