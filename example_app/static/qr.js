/**
 * A QR code for exactly what a safety number needs: up to 78 bytes of text in version 4-L.
 *
 * ISO/IEC 18004: 33 by 33 modules, byte mode, 80 codewords of data and 20 of error correction in a
 * single block. The mask is always the same one; a reader takes it from the format bits.
 */

const SIZE = 33;
const DATA_CODEWORDS = 80;
const CHECK_CODEWORDS = 20;
const LONGEST_TEXT = 78;
const ALIGNMENT = 26; // the centre of version 4's only alignment pattern, in both directions
const MASK = 0; // (row + column) is even
const LEVEL_L = 0b01;
const QUIET = 4; // modules of white around it
const SVG = "http://www.w3.org/2000/svg";

/**
 * The code as an image element.
 *
 * @param {string} text
 * @param {string} label for those who do not see it
 */
export function qrImage(text, label) {
  const modules = qrModules(text);
  const side = SIZE + 2 * QUIET;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${side} ${side}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  svg.setAttribute("shape-rendering", "crispEdges");
  svg.append(drawn(`M0 0h${side}v${side}H0z`, "#fff"));
  const dark = modules.flatMap((line, row) =>
    line.map((isDark, column) => (isDark ? `M${column + QUIET} ${row + QUIET}h1v1h-1z` : "")),
  );
  svg.append(drawn(dark.join(""), "#000"));
  return svg;
}

/**
 * @param {string} text
 * @returns {boolean[][]} rows of modules, true for dark
 */
export function qrModules(text) {
  const bytes = new TextEncoder().encode(text);
  if (bytes.length > LONGEST_TEXT) throw new RangeError("The text is too long for this QR code.");
  const modules = Array.from({ length: SIZE }, () => Array(SIZE).fill(null));
  drawPatterns(modules);
  drawFormat(modules);
  const data = dataCodewords(bytes);
  drawCodewords(modules, [...data, ...checkCodewords(data)]);
  return modules;
}

/** Mode, length, the bytes, an end, and filling. */
function dataCodewords(bytes) {
  const bits = [inBits(0b0100, 4), inBits(bytes.length, 8), ...[...bytes].map((byte) => inBits(byte, 8))];
  const text = `${bits.join("")}0000`;
  const words = (text.match(/.{8}/g) ?? []).map((word) => parseInt(word, 2));
  for (let at = 0; words.length < DATA_CODEWORDS; at += 1) words.push(at % 2 ? 0x11 : 0xec);
  return words;
}

/** Reed-Solomon over GF(256) with the polynomial 0x11d: the remainder of data · x²⁰. */
function checkCodewords(data) {
  const generator = generatorOf(CHECK_CODEWORDS);
  const remainder = Array(CHECK_CODEWORDS).fill(0);
  for (const word of data) {
    const factor = word ^ remainder.shift();
    remainder.push(0);
    generator.forEach((coefficient, at) => (remainder[at] ^= times(coefficient, factor)));
  }
  return remainder;
}

/** The coefficients of (x - 1)(x - 2)(x - 4)…, highest first, without the leading 1. */
function generatorOf(degree) {
  let polynomial = [1];
  for (let root = 1, at = 0; at < degree; at += 1, root = times(root, 2)) {
    const shifted = [...polynomial, 0];
    polynomial.forEach((coefficient, place) => (shifted[place + 1] ^= times(coefficient, root)));
    polynomial = shifted;
  }
  return polynomial.slice(1);
}

function times(left, right) {
  let product = 0;
  for (let bit = 7; bit >= 0; bit -= 1) {
    product = (product << 1) ^ (product >> 7 ? 0x11d : 0);
    if ((right >> bit) & 1) product ^= left;
  }
  return product;
}

function drawPatterns(modules) {
  for (let at = 0; at < SIZE; at += 1) modules[6][at] = modules[at][6] = at % 2 === 0;
  for (const [row, column] of [[3, 3], [3, SIZE - 4], [SIZE - 4, 3]]) {
    drawRings(modules, row, column, 4, (ring) => ring !== 2 && ring !== 4);
  }
  drawRings(modules, ALIGNMENT, ALIGNMENT, 2, (ring) => ring !== 1);
}

/** Squares around a centre, as far as they are within the code. */
function drawRings(modules, row, column, radius, isDark) {
  for (let down = -radius; down <= radius; down += 1) {
    for (let right = -radius; right <= radius; right += 1) {
      const [y, x] = [row + down, column + right];
      if (y < 0 || x < 0 || y >= SIZE || x >= SIZE) continue;
      modules[y][x] = isDark(Math.max(Math.abs(down), Math.abs(right)));
    }
  }
}

/** The level and the mask, with their BCH code, twice. */
function drawFormat(modules) {
  const value = (LEVEL_L << 3) | MASK;
  let remainder = value;
  for (let at = 0; at < 10; at += 1) remainder = (remainder << 1) ^ (remainder >> 9 ? 0x537 : 0);
  const bits = ((value << 10) | remainder) ^ 0x5412;
  const isDark = (at) => Boolean((bits >> at) & 1);
  for (let at = 0; at < 15; at += 1) {
    const [row, column] = at < 8 ? [at + (at > 5 ? 1 : 0), 8] : [8, at === 8 ? 7 : 14 - at];
    modules[row][column] = isDark(at);
    if (at < 8) modules[8][SIZE - 1 - at] = isDark(at);
    else modules[SIZE - 15 + at][8] = isDark(at);
  }
  modules[SIZE - 8][8] = true;
}

/** Up and down in pairs of columns, from the right; the rest stays 0, and all is masked. */
function drawCodewords(modules, words) {
  const bits = words.map((word) => inBits(word, 8)).join("");
  let at = 0;
  for (let right = SIZE - 1, isUp = true; right > 0; right -= 2, isUp = !isUp) {
    if (right === 6) right = 5;
    for (let step = 0; step < SIZE; step += 1) {
      const row = isUp ? SIZE - 1 - step : step;
      for (const column of [right, right - 1]) {
        if (modules[row][column] !== null) continue;
        modules[row][column] = (bits[at] === "1") !== ((row + column) % 2 === 0);
        at += 1;
      }
    }
  }
}

function inBits(value, length) {
  return value.toString(2).padStart(length, "0");
}

function drawn(path, colour) {
  const element = document.createElementNS(SVG, "path");
  element.setAttribute("d", path);
  element.setAttribute("fill", colour);
  return element;
}
