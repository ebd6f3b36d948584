// The corpus that every implementation of the validation must judge alike.

import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { test } from 'node:test'
import { Rejection, Validator } from 'chancery'

const folder = process.env.CHANCERY_VECTORS

// The corpus has Rust's names for what JavaScript calls otherwise.
const NAMES = {
  profile: 'profile',
  issuers: 'issuer',
  audiences: 'audience',
  leeway_s: 'leeway',
  max_lifetime_s: 'maxLifetime',
  accepted_typ: 'acceptedTyp',
  allow_missing_typ: 'allowMissingTyp',
  accept_eddsa: 'acceptEddsa',
  algorithms: 'algorithms',
  tenants: 'tenants',
}
// Where no key set is, so that none is looked for elsewhere.
const NOWHERE = 'http://127.0.0.1:9/'

function options(sets, { config, key_set: first, other_key_sets: others = {} }) {
  const settings = Object.entries(config).map(([name, value]) => {
    assert(NAMES[name], `the corpus has a setting \`${name}\`, which this test does not know`)
    return [NAMES[name], value]
  })
  const given = { [config.issuers[0]]: first, ...others }
  const jwks = Object.entries(given).map(([issuer, set]) => [issuer, sets[set]])
  const without = config.issuers.filter((issuer) => !(issuer in given))
  return {
    ...Object.fromEntries(settings),
    jwks: Object.fromEntries(jwks),
    jwksUri: Object.fromEntries(without.map((issuer) => [issuer, NOWHERE])),
  }
}

function verdict(judge) {
  try {
    judge()
    return 'valid'
  } catch (error) {
    if (!(error instanceof Rejection)) throw error
    return error.code
  }
}

const files = readdirSync(folder).filter((name) => name.endsWith('.json'))
assert(files.length >= 8, `${folder} does not hold the corpus`)

for (const file of files) {
  test(file, () => {
    const { cases, key_sets: sets } = JSON.parse(readFileSync(`${folder}/${file}`, 'utf8'))
    assert(cases.length > 0)
    for (const one of cases) {
      const { id, reason, expect, now, token } = one
      // The second time the cache has it, the third time its parsed content is there too.
      for (const [cache, times] of [
        [0, 1],
        [4, 3],
      ]) {
        let validator
        const judge = () => {
          validator ??= new Validator({ ...options(sets, one), cache })
          validator.validateSync(token, { now })
        }
        for (let time = 0; time < times; time++) {
          assert.equal(verdict(judge), expect, `${id}: ${reason}`)
        }
      }
    }
  })
}
