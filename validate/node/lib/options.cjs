// The settings of a validator: read once, and checked; the addon gets them as one JSON text.
//
// Whether they make sense together is judged by the addon; here is only what JavaScript alone can
// get wrong. A misspelled name is an error, because a demand that is silently dropped is none.

'use strict'

// What each setting must be. The addon knows them by the same names.
const SETTINGS = {
  issuer: texts,
  audience: texts,
  profile: text,
  jwks: keySets,
  jwksUri: perIssuer(text),
  metadataUri: perIssuer(text),
  leeway: wholeNumber,
  maxLifetime: (name, value) => (value === null ? null : wholeNumber(name, value)),
  acceptedTyp: texts,
  allowMissingTyp: truth,
  algorithms: texts,
  tenants: texts,
  acceptEddsa: truth,
  log: policy,
  logLookup: text,
  logAt: text,
  attestation: policy,
  anchor: text,
  cache: wholeNumber,
  allowPlainHttp: truth,
  rootCertificates: text,
  bounds,
  onFinding: callable,
}

// The limits in `bounds`.
const BOUNDS = {
  minAge: seconds,
  maxAge: seconds,
  defaultAge: seconds,
  coolDown: seconds,
  keep: seconds,
  retryAtMost: seconds,
  fetchTimeout: seconds,
  connectTimeout: seconds,
  waiting: wholeNumber,
  publishWithin: wholeNumber,
  checkpointAge: seconds,
  logBytes: wholeNumber,
  reports: wholeNumber,
}

// Answers `{ settings, onFinding }`.
function read(options) {
  if (typeof options !== 'object' || options === null) {
    throw new TypeError('a validator takes an object with at least `issuer` and `audience`')
  }
  const { onFinding, ...settings } = checked(SETTINGS, options, (name) => name)
  for (const name of ['issuer', 'audience']) {
    if (!(name in settings)) throw new TypeError(`\`${name}\` is missing`)
  }
  for (const name of ['jwks', 'jwksUri', 'metadataUri']) {
    if (name in settings) settings[name] = pairs(name, settings[name], settings.issuer)
  }
  return { settings, onFinding }
}

// The members of `given` that are there, inherited ones too. Each is read once.
function checked(known, given, full) {
  const members = {}
  for (const name in given) {
    const value = given[name]
    if (value === undefined) continue
    if (!Object.hasOwn(known, name)) {
      const names = Object.keys(known).map((one) => `\`${one}\``)
      throw new TypeError(`\`${full(name)}\` is no setting; there are ${names.join(', ')}`)
    }
    members[name] = known[name](full(name), value)
  }
  return members
}

function text(name, value) {
  if (typeof value !== 'string') wrong(name, 'a string', value)
  if (!value.isWellFormed()) throw new TypeError(`\`${name}\` holds half a character`)
  return value
}

function texts(name, value) {
  if (typeof value === 'string') return [text(name, value)]
  if (!Array.isArray(value)) wrong(name, 'a string or an array of them', value)
  return Array.from(value, (one) => text(name, one))
}

function policy(name, value) {
  if (!['off', 'report', 'require'].includes(text(name, value))) {
    throw new TypeError(`\`${name}\` is \`off\`, \`report\` or \`require\`, not \`${value}\``)
  }
  return value
}

function truth(name, value) {
  if (typeof value !== 'boolean') wrong(name, 'true or false', value)
  return value
}

function wholeNumber(name, value) {
  if (!Number.isSafeInteger(value) || value < 0) wrong(name, 'a whole number, 0 or more', value)
  return value
}

function callable(name, value) {
  if (typeof value !== 'function') wrong(name, 'a function', value)
  return value
}

function bounds(name, value) {
  if (!isRecord(value)) wrong(name, 'an object of numbers', value)
  return checked(BOUNDS, value, (bound) => `${name}.${bound}`)
}

function seconds(name, value) {
  if (!(Number.isFinite(value) && value >= 0)) wrong(name, 'a number of seconds, 0 or more', value)
  return value
}

// One value, or an object from issuers to values. Which of the two is known: texts are values.
function perIssuer(check) {
  return (name, value) =>
    isRecord(value)
      ? new Map(Object.entries(value).map(([issuer, one]) => [issuer, check(name, one)]))
      : check(name, value)
}

// A JWK Set has a member `keys` (RFC 7517, section 5.1), which is no issuer's URL.
function keySets(name, value) {
  return isRecord(value) && !Object.hasOwn(value, 'keys')
    ? perIssuer(keySet)(name, value)
    : keySet(name, value)
}

function keySet(name, value) {
  // What is no text becomes a text that is no JWK Set.
  if (typeof value === 'string') return value.toWellFormed()
  if (!isRecord(value)) wrong(name, 'a JWK Set, as text or as an object', value)
  return JSON.stringify(value)
}

// `[issuer, value]`, from one value for the one issuer or from one for each.
function pairs(name, value, issuers) {
  if (value instanceof Map) return [...value]
  if (issuers.length !== 1) {
    throw new TypeError(
      `there are ${issuers.length} issuers: \`${name}\` is an object with one for each`,
    )
  }
  return [[issuers[0], value]]
}

function isRecord(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function wrong(name, wanted, value) {
  const seen = value === null ? 'null' : Array.isArray(value) ? 'an array' : typeof value
  throw new TypeError(`\`${name}\` is ${wanted}, not ${seen === 'number' ? `\`${value}\`` : seen}`)
}

module.exports = { read }
