// Bearer tokens for Express, and whatever else calls `(req, res, next)`.
//
// Whoever sent the token learns nothing but `invalid_token` (RFC 6750, section 3.1); the code and
// the detail of a rejection go to `onRejection`.

'use strict'

const { Rejection } = require('./rejection.cjs')

// Longer than a key set's fetch and, mostly, a log's publishing take.
const RETRY_AFTER_S = 5
// RFC 6749, section 3.3.
const SCOPE_TOKEN = /^[\x21\x23-\x5b\x5d-\x7e]+$/
// What fits between the quotes of a header without escapes (RFC 9110, section 5.6.4).
const QUOTABLE = /^[ !#-[\]-~]*$/

function bearer(validator, { scope = [], realm, retryAfter = RETRY_AFTER_S, onRejection } = {}) {
  if (typeof validator?.validate !== 'function') {
    throw new TypeError('`bearer` takes a `Validator` first')
  }
  if (realm !== undefined && !(typeof realm === 'string' && QUOTABLE.test(realm))) {
    throw new TypeError('`realm` does not fit between the quotes of a header')
  }
  if (!Number.isSafeInteger(retryAfter) || retryAfter < 0) {
    throw new TypeError('`retryAfter` is in whole seconds, 0 or more')
  }
  if (onRejection !== undefined && typeof onRejection !== 'function') {
    throw new TypeError('`onRejection` is a function')
  }
  const required = scopeTokens(scope)
  const refuse = new Refusals(realm, retryAfter)

  async function judge(req, res) {
    const token = tokenOf(req)
    if (token === null) return refuse.noToken(res)
    if (token === undefined) return refuse.invalidRequest(res)
    let accepted
    try {
      accepted = await validator.validate(token)
    } catch (error) {
      if (!(error instanceof Rejection)) throw error
      onRejection?.(error, req)
      return error.retryable ? refuse.unavailable(res) : refuse.invalidToken(res)
    }
    const granted = scopesOf(accepted.claims)
    if (!required.every((one) => granted.includes(one))) {
      return refuse.insufficientScope(res, required)
    }
    req.token = accepted
    return true
  }

  // Whatever is thrown is the program's own fault, and its error handler's to answer.
  return function bearerToken(req, res, next) {
    judge(req, res).then((passed) => passed && next(), next)
  }
}

// The token; null if the request has none, undefined if it cannot be told which one it has.
function tokenOf(req) {
  // `headers` would show the first of several.
  const values = req.headersDistinct?.authorization ?? [req.headers.authorization ?? '']
  if (values.length > 1) return undefined
  const [scheme, ...words] = values[0].trim().split(/ +/)
  if (scheme.toLowerCase() !== 'bearer') return null
  return words.length === 1 ? words[0] : undefined
}

// Scope tokens, each one space apart (RFC 6749, section 3.3). Any other text grants nothing: readers that
// split it differently would grant differently.
function scopesOf({ scope }) {
  const tokens = typeof scope === 'string' ? scope.split(' ') : []
  return tokens.every((token) => SCOPE_TOKEN.test(token)) ? tokens : []
}

function scopeTokens(scope) {
  const tokens = typeof scope === 'string' ? scope.split(' ').filter(Boolean) : Array.from(scope)
  for (const token of tokens) {
    if (typeof token !== 'string' || !SCOPE_TOKEN.test(token)) {
      throw new TypeError(`\`${String(token)}\` is not a scope token (RFC 6749, section 3.3)`)
    }
  }
  return tokens
}

// The answers of RFC 6750, section 3. Each says that the request went no further.
class Refusals {
  #realm
  #retryAfter

  constructor(realm, retryAfter) {
    this.#realm = realm
    this.#retryAfter = retryAfter
  }

  // Section 3.1: who did not try to authenticate by a token gets no error code.
  noToken(res) {
    return this.#challenge(res, 401, 'unauthorized', {})
  }

  invalidRequest(res) {
    return this.#challenge(res, 400, 'invalid_request', { error: 'invalid_request' })
  }

  invalidToken(res) {
    return this.#challenge(res, 401, 'invalid_token', { error: 'invalid_token' })
  }

  insufficientScope(res, required) {
    const told = { error: 'insufficient_scope', scope: required.join(' ') }
    return this.#challenge(res, 403, 'insufficient_scope', told)
  }

  unavailable(res) {
    return answer(res, 503, 'temporarily_unavailable', 'Retry-After', String(this.#retryAfter))
  }

  #challenge(res, status, error, told) {
    const members = this.#realm === undefined ? told : { realm: this.#realm, ...told }
    const parameters = Object.entries(members).map(([name, value]) => `${name}="${value}"`)
    return answer(res, status, error, 'WWW-Authenticate', `Bearer ${parameters.join(', ')}`.trim())
  }
}

function answer(res, status, error, header, value) {
  res.statusCode = status
  res.setHeader(header, value)
  res.setHeader('Cache-Control', 'no-store')
  res.setHeader('Content-Type', 'application/json')
  res.end(JSON.stringify({ error }))
  return false
}

module.exports = { bearer }
